"""Asks and answers: what is read, what is refused, and that nothing else can happen."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.errors import AskError
from tinyllava_edge.messages import Answer, Ask, failure, parse_ask, picture_bytes, read_id

GOOD = {"id": "a-1", "camera": "porch", "question": "Is it open?"}


def encoded(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(name: str, **changes: object) -> bytes:
    return json.dumps({key: v for key, v in {**GOOD, **changes}.items() if key != name}).encode()


def test_ask_gets_its_defaults_when_only_the_needed_fields_are_given():
    ask = parse_ask(encoded())
    assert (ask.id, ask.camera, ask.texts) == ("a-1", "porch", ("Is it open?",))
    assert (ask.kind, ask.priority, ask.max_tokens, ask.sensors) == ("text", 5, 32, ())
    assert ask.deadline_ms is None
    assert ask.max_age_ms is None


def test_ask_keeps_every_field_of_the_contract():
    ask = parse_ask(
        without(
            "question",
            questions=["a", "b"],
            kind="choice",
            choices=["red", "green"],
            sensors=["temperature"],
            max_tokens=8,
            deadline_ms=500,
            max_age_ms=1000,
            priority=9,
            stream=False,
            reply_to="tinyllava/me",
        )
    )
    assert ask.texts == ("a", "b")
    assert ask.choices == ("red", "green")
    assert (ask.max_tokens, ask.deadline_ms, ask.max_age_ms, ask.priority) == (8, 500, 1000, 9)
    assert ask.reply_to == "tinyllava/me"


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"", "JSON"),
        (b"not json", "JSON"),
        (b"\xff\xfe{}", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "object"),
        (b"{}", "id"),
        (without("id"), "id"),
        (encoded(id="a/b"), "id"),
        (encoded(id="a\n"), "id"),
        (encoded(id="x" * 65), "id"),
        (without("camera"), "camera or image"),
        (encoded(image="AAAA"), "camera or image"),
        (without("question"), "question or questions"),
        (encoded(questions=["b"]), "question or questions"),
        (encoded(question=""), "question"),
        (encoded(question=7), "question"),
        (encoded(question="x" * 1001), "question"),
        (encoded(kind="poem"), "kind"),
        (encoded(kind="choice"), "choices"),
        (encoded(kind="choice", choices=["only"]), "two or more"),
        (encoded(kind="choice", choices=["same", "same"]), "different"),
        (encoded(choices=["a", "b"]), "choices"),
        (encoded(max_tokens=0), "max_tokens"),
        (encoded(max_tokens="8"), "max_tokens"),
        (encoded(deadline_ms=-1), "deadline_ms"),
        (encoded(priority=10), "priority"),
        (encoded(colour="red"), "colour"),
    ],
)
def test_ask_is_refused_naming_the_fault_when_invalid(payload, named):
    with pytest.raises(AskError, match=named) as caught:
        parse_ask(payload)
    assert caught.value.code == "invalid_ask"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "changes", [{"kind": "json", "schema": {}}, {"schema": {"type": "object"}}, {"stream": True}]
)
def test_ask_is_unsupported_when_it_wants_what_is_not_built(changes):
    with pytest.raises(AskError) as caught:
        parse_ask(encoded(**changes))
    assert caught.value.code == "unsupported"
    assert failure("a-1", caught.value.code, str(caught.value)).outcome == "rejected"


@given(st.binary(max_size=200))
def test_parse_ask_gives_an_ask_or_an_ask_error_whatever_the_bytes(payload):
    try:
        assert isinstance(parse_ask(payload), Ask)
    except AskError as error:
        assert error.code in {"invalid_ask", "unsupported"}
    read_id(payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Ask.model_fields, "schema", "other"]), JSON))
def test_parse_ask_gives_an_ask_or_an_ask_error_whatever_the_fields(changes):
    try:
        ask = parse_ask(json.dumps({**GOOD, **changes}).encode())
    except AskError:
        return
    assert ask.texts
    assert 0 <= ask.priority <= 9


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (encoded(kind=7), "a-1"),
        (encoded(id="a/b"), None),
        (encoded(id=5), None),
        (b'["a-1"]', None),
        (b'{"id": "a-1"', None),
        (b"[" * 100_000, None),
    ],
)
def test_read_id_finds_only_an_id_that_can_be_a_topic_level(payload, expected):
    assert read_id(payload) == expected


def test_picture_bytes_decodes_plain_base64_and_refuses_a_data_url():
    text = base64.b64encode(b"picture").decode()
    assert picture_bytes(parse_ask(without("camera", image=text))) == b"picture"
    with pytest.raises(AskError) as caught:
        picture_bytes(parse_ask(without("camera", image="data:image/jpeg;base64," + text)))
    assert caught.value.code == "bad_picture"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("invalid_ask", "error"),
        ("unknown_camera", "error"),
        ("queue_full", "rejected"),
        ("deadline", "expired"),
        ("frame_too_old", "expired"),
        ("stopped", "dropped"),
    ],
)
def test_failure_has_the_outcome_of_its_code(code, outcome):
    assert failure("a", code, "why").outcome == outcome


def test_answer_is_written_with_every_field_in_the_order_of_the_contract():
    fields = list(json.loads(failure("a", "deadline", "late", "porch").to_bytes()))
    contract = "id outcome answer verdict confidence camera captured_at age_ms frame_sha256 sensors"
    wanted = [*contract.split(), "model", "timings_ms", "error"]
    assert [field for field in fields if field in wanted] == wanted
    assert Answer.model_validate_json(failure("a", "deadline", "late").to_bytes()).error is not None
