"""``tinyllava-edge ask``, through the command line as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tinyllava_edge.cli import app
from tinyllava_edge.cli.arguments import parse_sensor
from tinyllava_edge.prompt import Reading


@pytest.fixture
def picture(tmp_path, jpeg):
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg)
    return str(path)


@pytest.fixture
def run(tiny_model):
    def invoke(*arguments):
        words = ["ask", str(tiny_model.folder), *arguments, "--threads", "1"]
        return CliRunner().invoke(app, words)

    return invoke


def test_ask_prints_one_object_when_json_is_wanted(run, picture):
    result = run(picture, "what?", "--json", "--max-tokens", "4")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert list(answer) == [
        "text",
        "token_ids",
        "n_image_tokens",
        "prompt_tokens",
        "timings_ms",
        "verdict",
        "confidence",
    ]
    assert answer["n_image_tokens"] == 16
    assert len(answer["token_ids"]) == 4
    assert answer["verdict"] is None


def test_ask_prints_the_same_tokens_when_run_twice(run, picture):
    first, second = (run(picture, "what?", "--json", "--temperature", "0") for _ in range(2))
    assert json.loads(first.stdout)["token_ids"] == json.loads(second.stdout)["token_ids"]


def test_ask_prints_a_list_when_there_are_several_questions(run, picture):
    result = run(picture, "open?", "closed?", "--kind", "yes_no", "--json")
    answers = json.loads(result.stdout)["answers"]
    assert [answer["verdict"] == answer["text"] for answer in answers] == [True, True]


def test_ask_chooses_among_the_choices_when_they_are_given(run, picture):
    result = run(picture, "colour?", "--kind", "choice", "--choices", "red, green", "--json")
    assert json.loads(result.stdout)["text"] in {"red", "green"}


def test_ask_writes_readings_into_the_prompt_when_sensors_are_given(run, picture):
    bare = json.loads(run(picture, "safe?", "--json").stdout)
    fused = json.loads(run(picture, "safe?", "--json", "--sensor", "t=62 °C@3").stdout)
    # "Sensors: t=62 °C, 3 s ago\n" in a vocabulary of bytes.
    assert fused["prompt_tokens"] - bare["prompt_tokens"] == len("Sensors: t=62 °C, 3 s ago\n") + 1


def test_ask_prints_text_for_people_when_json_is_not_wanted(run, picture):
    result = run(picture, "open?", "--kind", "yes_no")
    assert result.stdout.split()[0] in {"yes", "no", "unknown"}
    assert result.stdout.endswith(" ms)\n")


def test_ask_prints_one_line_and_exits_1_when_the_error_is_ours(run, tmp_path, picture):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for result in (
        run(str(broken), "what?"),
        run(str(tmp_path / "missing.jpg"), "what?"),
        run(picture, "what? " * 400),
        CliRunner().invoke(app, ["ask", str(tmp_path), picture, "what?"]),
    ):
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_ask_refuses_in_one_line_when_a_file_is_not_the_one_in_the_manifest(
    tiny_model, tmp_path, picture
):
    copy = Path(shutil.copytree(tiny_model.folder, tmp_path / "copy"))
    weights = bytearray((copy / "llm.gguf").read_bytes())
    weights[-1] ^= 1
    (copy / "llm.gguf").write_bytes(weights)
    result = CliRunner().invoke(app, ["ask", str(copy), picture, "what?"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "llm.gguf has sha256" in result.stderr


def test_ask_refuses_in_one_line_when_the_context_is_smaller_than_the_questions(run, picture):
    result = run(picture, "what?", "--context", "5")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--kind", "poem"],
        ["--kind", "choice"],
        ["--choices", "a,b"],
        ["--sensor", "no equals sign"],
        ["--max-tokens", "0"],
        ["--temperature", "0.7"],
    ],
)
def test_ask_exits_2_when_the_usage_is_wrong(run, picture, words):
    result = run(picture, "what?", *words)
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("temperature=62 °C@3", Reading("temperature", "62", "°C", 3)),
        ("temperature=62°C@3s", Reading("temperature", "62", "°C", 3)),
        ("p=-1.5bar", Reading("p", "-1.5", "bar")),
        ("level=80%@10", Reading("level", "80", "%", 10)),
        ("count=7", Reading("count", "7")),
        ("door=half open@2", Reading("door", "half open", "", 2)),
        ("v=1.2.3", Reading("v", "1.2.3")),
    ],
)
def test_parse_sensor_splits_value_and_unit_when_there_is_a_number(text, reading):
    assert parse_sensor(text) == reading


@pytest.mark.parametrize("text", ["", "=", "a=", "=1", "a=1@", "a=1@x", "a=1@-2", "plain"])
def test_parse_sensor_refuses_when_it_is_no_reading(text):
    with pytest.raises(typer.BadParameter, match=r"name=value"):
        parse_sensor(text)
