"""``tinyllava-edge check`` and what ``run`` refuses before it starts."""

import json

import pytest
from typer.testing import CliRunner

from tinyllava_edge.cli import app


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def configuration(tmp_path, tiny_model):
    file = tmp_path / "gateway.yaml"
    file.write_text(f"gateway: hall\nbundle: {tiny_model.folder}\n")
    return file


def test_check_tells_what_a_right_configuration_comes_to(configuration):
    result = call("check", str(configuration), "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["ok"] is True
    assert facts["broker"] == "localhost:1883"
    assert facts["answers_on"] == "tinyllava/hall/answer/<id>"
    assert "right" in call("check", str(configuration)).stdout


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gatway: x\n", "gatway"),
        ("bundle: nowhere\n", "nowhere"),
        ("mqtt: {username: a, password_env: TINYLLAVA_NOT_SET}\n", "TINYLLAVA_NOT_SET"),
        ("mqtt: {tls: {ca_file: none.pem}}\n", "tls"),
    ],
)
def test_check_and_run_refuse_in_one_line_when_something_is_wrong(configuration, text, named):
    if "bundle" not in text:
        text += configuration.read_text().split("\n")[1] + "\n"
    configuration.write_text(text)
    for arguments in (["check", str(configuration)], ["run", "--config", str(configuration)]):
        result = call(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert named in result.stderr
        assert result.stderr.count("\n") == 1
    assert json.loads(call("check", str(configuration), "--json").stdout)["ok"] is False


def test_check_prints_the_schema_without_a_file():
    schema = json.loads(call("check", "--schema").stdout)
    assert "mqtt" in schema["properties"]
    assert schema["additionalProperties"] is False


def test_check_is_a_usage_error_without_a_file():
    assert call("check").exit_code == 2
