"""The examples of the documents are what the code reads and writes."""

import json
import re
from pathlib import Path

import pytest

from tinyllava_edge.config import parse_config
from tinyllava_edge.messages import _OUTCOMES, Answer, Ask, failure, outcome_of, parse_ask
from tinyllava_edge.sensors import read_value

DOCS = Path(__file__).parents[2] / "docs"
MQTT = (DOCS / "mqtt.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```json {kind}\n(.*?)^```", MQTT, re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("text", blocks("ask"))
def test_every_ask_in_the_document_is_accepted(text):
    assert parse_ask(text.encode()).texts


@pytest.mark.parametrize("text", blocks("answer"))
def test_every_answer_in_the_document_has_exactly_the_fields_that_are_published(text):
    answer = Answer.model_validate_json(text)
    assert list(json.loads(text)) == list(json.loads(answer.to_bytes()))
    if answer.error is not None:
        assert answer.outcome == outcome_of(answer.error.code)


@pytest.mark.parametrize("text", blocks("reading"))
def test_every_reading_in_the_document_is_read(text):
    assert read_value(text.encode(), None) == ("62.5", "°C")


def test_the_table_of_asks_names_every_field():
    table = MQTT.split("## Asks")[1].split("## Answers")[0]
    for name, field in Ask.model_fields.items():
        assert f"`{field.alias or name}`" in table


def test_the_table_of_outcomes_puts_every_code_where_the_code_does():
    rows = re.findall(r"^\| `(error|expired|rejected|dropped)` \| (.*) \|$", MQTT, re.MULTILINE)
    listed = {code: outcome for outcome, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert {code: failure("a", code, "").outcome for code in listed} == listed
    assert set(_OUTCOMES) <= set(listed)


def test_the_configuration_in_the_document_is_accepted():
    text = (DOCS / "gateway.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    config = parse_config(example.encode(), "docs/gateway.md")
    assert list(config.cameras) == ["boiler", "drive"]
    assert config.base == "tinyllava/boiler-room"
