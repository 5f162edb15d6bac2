"""The demo's parts on a scripted engine: scenes are shown, asked about, judged and reported."""

import json
import shlex

import pytest

from tinyllava_edge.demo.device import Device
from tinyllava_edge.demo.report import Report, as_json
from tinyllava_edge.demo.scene import load_scenes
from tinyllava_edge.demo.show import CAMERA, demo_config, play
from tinyllava_edge.engines.fake import FakeEngine
from tinyllava_edge.errors import TinyLlavaError
from tinyllava_edge.gateway import Gateway

LISTED = [
    {
        "picture": "one.jpg",
        "sensors": [{"name": "temperature", "value": "62", "unit": "°C"}],
        "questions": [
            {"question": "What colour?", "truth": "Red"},
            {"question": "Hot?", "kind": "yes_no", "truth": "no", "sensors": ["temperature"]},
        ],
    },
    {"picture": "two.jpg", "questions": [{"question": "What colour?", "truth": "blue"}]},
]


@pytest.fixture
def folder(tmp_path, jpeg, encoded, gradient):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/one.jpg").write_bytes(jpeg)
    (tmp_path / "pictures/two.jpg").write_bytes(encoded(gradient(64, 48), "JPEG"))
    (tmp_path / "questions.json").write_text(json.dumps(LISTED))
    return tmp_path


@pytest.fixture
def judged(folder, broker):
    scenes = load_scenes(folder)
    config = demo_config(broker.port, "demo", scenes)
    gateway = Gateway(config, lambda: FakeEngine({"What colour?": "red", "Hot?": "yes"}))
    gateway.start()
    device = Device(config.mqtt.host, config.mqtt.port, config.base, name="demo-under-test")
    try:
        assert gateway.wait_online(20)
        device.start()
        yield play(scenes, device, lambda one: None)
    finally:
        device.stop()
        gateway.stop()


def test_play_judges_every_answer_about_its_own_picture(judged):
    found = [(one.picture, one.answer, one.right) for one in judged]
    assert found == [
        ("one.jpg", "red", True),
        ("one.jpg", "yes", False),
        ("two.jpg", "red", False),
    ]
    assert judged[1].sensor_line == "temperature=62 °C"
    assert all(one.milliseconds > 0 for one in judged)


def test_report_ends_with_the_line_for_programs(judged, capsys):
    report = Report()
    for one in judged:
        report.judged(one)
    report.totals(judged)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "3 asked, 3 answered, 1 right"
    (sensor_line,) = [line for line in lines if "temperature=62 °C" in line]
    assert "yes" in sensor_line
    assert "truth: no ✗" in sensor_line
    assert as_json(judged, "fake")["right"] == 1


def test_report_invites_with_a_line_that_a_shell_and_the_gateway_can_read(capsys):
    Report().invitation("tinyllava/demo", 1883, 'What\'s on tank "A"?')
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "/ask" in x]
    ask = json.loads(shlex.split(line)[-1])
    assert ask["question"] == 'What\'s on tank "A"?'
    assert ask["camera"] == CAMERA


@pytest.mark.parametrize("damage", ["missing picture", "missing list", "no json"])
def test_load_scenes_says_in_one_line_what_is_damaged(folder, damage):
    if damage == "missing picture":
        (folder / "pictures/two.jpg").unlink()
    elif damage == "missing list":
        (folder / "questions.json").unlink()
    else:
        (folder / "questions.json").write_text("[{]")
    with pytest.raises(TinyLlavaError, match=r"questions.json: .* install") as caught:
        load_scenes(folder)
    assert "\n" not in str(caught.value)
