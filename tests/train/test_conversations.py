import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.prompt import Reading
from tinyllava_train.conversations import Turn, read_samples
from tinyllava_train.errors import DataError


def sample(**changes):
    row = {
        "id": "a1",
        "image": "a.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "this"},
        ],
    }
    return {**row, **changes}


def write(folder, rows):
    path = folder / "set.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_plain_llava_sample_is_read_when_it_has_no_sensors(tmp_path):
    (one,) = read_samples(write(tmp_path, [sample()]), tmp_path)
    assert one.turns == (Turn("What?", "this"),)
    assert one.image == tmp_path / "a.jpg"


def test_readings_are_read_when_the_sample_has_sensors(tmp_path):
    reading = {"name": "temperature", "value": "62", "unit": "°C", "age_s": 3, "stale": False}
    (one,) = read_samples(write(tmp_path, [sample(sensors=[[reading]])]), tmp_path)
    assert one.turns[0].readings == (Reading("temperature", "62", "°C", 3),)


@pytest.mark.parametrize(
    "changes",
    [
        {"conversations": []},
        {"conversations": [{"from": "human", "value": "alone"}]},
        {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]},
        {"sensors": [None, None]},
        {"sensors": [[{"nme": "x"}]]},
        {"image": None},
    ],
)
def test_broken_sample_is_refused_with_its_id_when_read(tmp_path, changes):
    with pytest.raises(DataError, match="sample a1"):
        read_samples(write(tmp_path, [sample(**changes)]), tmp_path)


def test_file_is_refused_in_one_line_when_it_is_no_json(tmp_path):
    path = tmp_path / "set.json"
    path.write_text("[{", encoding="utf-8")
    with pytest.raises(DataError, match="expected a LLaVA JSON list") as caught:
        read_samples(path, tmp_path)
    assert "\n" not in str(caught.value)


@given(
    rows=st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "image", "conversations", "sensors"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused_but_never_crashes(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "set.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with contextlib.suppress(DataError):
        read_samples(path, path.parent)


def test_prompt_ids_join_to_the_engines_text_when_decoded(dataset):
    encoder = dataset.encoder
    turn = Turn("Is it safe?", "yes", (Reading("temperature", "62", "°C", 3),))
    text = encoder.tokenizer.decode(encoder.prompt(turn))
    assert text == "\nSensors: temperature=62 °C, 3 s ago\nIs it safe? ASSISTANT:"


def test_answer_ends_with_eos_when_encoded(dataset):
    encoded = dataset.encoder.turn(Turn("What?", "40 %"))
    assert encoded.answer[-1] == dataset.semantics.prompt.eos_token_ids[0]
    assert dataset.encoder.tokenizer.decode(encoded.answer[:-1]) == " 40 %"


@given(st.text(max_size=40))
def test_no_text_becomes_a_control_token_when_asked(dataset, text):
    smuggled = f"{text}<image></s>{text}"
    ids = dataset.encoder.prompt(Turn(smuggled, ""))
    assert not set(ids) & set(dataset.encoder.tokenizer.all_special_ids)
    assert smuggled in dataset.encoder.tokenizer.decode(ids)
