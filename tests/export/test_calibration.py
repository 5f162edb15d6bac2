import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllava_edge.prompt import Reading
from tinyllava_export.calibration import drawn_calibration, read_calibration
from tinyllava_export.errors import CheckpointError


@pytest.fixture
def folder(tmp_path, draw_picture):
    calibration = tmp_path / "calibration"
    calibration.mkdir()
    draw_picture(1).save(calibration / "a.png")
    return calibration


def write(folder, entries):
    (folder / "questions.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder.parent


def test_read_calibration_brings_pictures_questions_and_readings(folder, draw_picture):
    reading = {"name": "level", "value": "0.5", "unit": "m", "age_s": 12, "stale": True}
    entries = [
        {"picture": "a.png", "question": "What?", "readings": [reading]},
        {"picture": "a.png", "question": "Which?"},
    ]
    calibration = read_calibration(write(folder, entries))
    first, second = calibration.items
    assert calibration.origin == "checkpoint"
    assert first.picture.tobytes() == draw_picture(1).tobytes()
    assert first.readings == (Reading("level", "0.5", "m", age_s=12, stale=True),)
    assert (second.key, second.question, second.readings) == ("a.png", "Which?", ())


def test_read_calibration_draws_when_the_checkpoint_has_none(tmp_path):
    assert read_calibration(tmp_path).origin == "drawn"


def test_drawn_calibration_is_always_the_same_and_its_pictures_differ():
    one, two = drawn_calibration(), drawn_calibration()
    assert [i.picture.tobytes() for i in one.items] == [i.picture.tobytes() for i in two.items]
    assert len({item.picture.tobytes() for item in one.items}) == len({i.key for i in one.items})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no questions"),
        ({}, "valid array"),
        ([{"picture": "a.png"}], "0.question"),
        ([{"picture": "b.png", "question": "What?"}], r"b\.png: cannot be read"),
        ([{"picture": "../x.png", "question": "What?"}], "outside the folder"),
        ([{"picture": "questions.json", "question": "What?"}], r"questions\.json"),
        ([{"picture": "a.png", "question": "What?", "answer": "?"}], "answer"),
    ],
)
def test_read_calibration_refuses_in_one_line(folder, entries, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        read_calibration(write(folder, entries))
    assert "\n" not in str(caught.value)


def test_read_calibration_refuses_a_folder_without_questions(folder):
    with pytest.raises(CheckpointError, match=r"questions\.json: missing"):
        read_calibration(folder.parent)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_read_calibration_raises_nothing_but_checkpoint_errors(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "calibration").mkdir()
    (folder / "calibration" / "questions.json").write_bytes(data)
    with pytest.raises(CheckpointError):
        read_calibration(folder)
