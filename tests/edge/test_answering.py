"""Asks to answers through an engine: freshness, deadlines, sensors, pictures, long prompts."""

import hashlib
import io
import json
import time

import pytest
from PIL import Image

from tinyllava_edge.answering import Answerer
from tinyllava_edge.drops import Drops
from tinyllava_edge.engines.fake import FakeEngine
from tinyllava_edge.errors import PromptTooLong
from tinyllava_edge.frames import FrameStore
from tinyllava_edge.messages import Ask
from tinyllava_edge.pictures import PictureLimits
from tinyllava_edge.schedule import Pending, ReplyTo
from tinyllava_edge.sensors import SensorBoard, SensorForm


def jpeg(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(out, "JPEG")
    return out.getvalue()


class ShortEngine(FakeEngine):
    """Refuses questions of more than ten characters, as an engine with a tiny context would."""

    def ask(self, sight, questions):
        if any(len(question.text) > 10 for question in questions):
            raise PromptTooLong("prompt of 99 tokens, the context has 10")
        return super().ask(sight, questions)


class Desk:
    """An answerer with one camera and one sensor."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine({"What colour?": "red", "Is it red?": "yes"})
        self.frames = FrameStore(["porch"], Drops(), max_bytes=1 << 20, max_cameras=1)
        forms = {"temperature": SensorForm(unit="°C")}
        self.sensors = SensorBoard(forms, Drops(), max_sensors=1)
        limits = PictureLimits(max_bytes=1 << 20, max_pixels=1 << 20)
        self.answerer = Answerer(self.engine, self.frames, self.sensors, limits)

    def pending(self, ask_id: str = "a", picture: bytes | None = None, **fields: object) -> Pending:
        asked = {} if "questions" in fields else {"question": "What colour?"}
        source = {"camera": "porch"} if picture is None else {"image": "AA=="}
        ask = Ask.model_validate_json(json.dumps({"id": ask_id, **source, **asked, **fields}))
        return Pending(ask, ReplyTo("t"), "key", picture)

    def one(self, **fields: object):
        return self.answerer.answer([self.pending(**fields)])[0]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.frames.put("porch", jpeg())
    return made


def test_answer_carries_the_text_and_where_it_comes_from(desk):
    answer = desk.one()
    assert (answer.outcome, answer.answer, answer.confidence) == ("ok", "red", 0.9)
    assert (answer.camera, answer.frame_seq, answer.model) == ("porch", 1, "fake")
    assert answer.frame_sha256 == hashlib.sha256(jpeg()).hexdigest()
    assert answer.captured_at is not None
    assert answer.age_ms is not None
    assert answer.timings_ms["since_ask"] > 0


def test_answer_has_a_verdict_when_the_kind_is_yes_no(desk):
    answer = desk.one(question="Is it red?", kind="yes_no")
    assert (answer.answer, answer.verdict) == ("yes", "yes")


def test_answer_is_among_the_choices_when_the_kind_is_choice(desk):
    assert desk.one(kind="choice", choices=["green", "red"]).answer == "red"


def test_answers_are_listed_when_there_are_several_questions(desk):
    answer = desk.one(questions=["What colour?", "Why?"])
    assert answer.answer is None
    assert [(a.question, a.answer) for a in answer.answers] == [
        ("What colour?", "red"),
        ("Why?", "ok"),
    ]


def test_group_costs_one_look_and_one_batch(desk):
    group = [desk.pending("a"), desk.pending("b", question="Why?"), desk.pending("c")]
    answers = desk.answerer.answer(group)
    assert [(a.id, a.answer) for a in answers] == [("a", "red"), ("b", "ok"), ("c", "red")]
    assert (desk.engine.seen, desk.engine.batches, desk.engine.asked) == (1, 1, 3)


def test_answer_is_about_the_newest_frame(desk):
    desk.frames.put("porch", jpeg("blue"))
    answer = desk.one()
    assert answer.frame_seq == 2
    assert answer.frame_sha256 == hashlib.sha256(jpeg("blue")).hexdigest()


def test_answer_is_about_the_picture_that_came_with_the_ask():
    answer = Desk().one(picture=jpeg("blue"))
    assert answer.outcome == "ok"
    assert answer.frame_sha256 == hashlib.sha256(jpeg("blue")).hexdigest()
    assert (answer.camera, answer.captured_at, answer.age_ms) == (None, None, None)


def test_sensors_stand_in_the_answer_as_they_stood_in_the_prompt(desk):
    desk.sensors.put("temperature", b"62")
    used = desk.one(sensors=["temperature"]).sensors
    assert [(s.name, s.value, s.unit, s.stale) for s in used] == [
        ("temperature", "62", "°C", False)
    ]


def outcome(answer) -> tuple[str, str]:
    return answer.outcome, answer.error.code


def test_ask_fails_when_a_sensor_has_no_reading(desk):
    answer = desk.one(sensors=["temperature"])
    assert outcome(answer) == ("error", "no_reading")
    assert "temperature" in answer.error.message
    assert desk.engine.asked == 0


def test_ask_fails_when_the_camera_has_no_frame_yet():
    assert outcome(Desk().one()) == ("error", "no_frame")


def test_ask_expires_without_inference_when_its_deadline_has_passed(desk):
    late = desk.pending(deadline_ms=1)
    time.sleep(0.01)
    assert outcome(desk.answerer.answer([late])[0]) == ("expired", "deadline")
    assert desk.engine.asked == 0


def test_ask_expires_when_the_answer_comes_after_its_deadline():
    desk = Desk(FakeEngine(delay_s=0.1))
    desk.frames.put("porch", jpeg())
    assert outcome(desk.one(deadline_ms=50)) == ("expired", "deadline")
    assert desk.engine.asked == 1


def test_ask_expires_when_the_frame_is_or_becomes_too_old(desk):
    time.sleep(0.02)
    assert outcome(desk.one(max_age_ms=10)) == ("expired", "frame_too_old")
    assert desk.engine.asked == 0
    slow = Desk(FakeEngine(delay_s=0.1))
    slow.frames.put("porch", jpeg())
    assert outcome(slow.one(max_age_ms=50)) == ("expired", "frame_too_old")


def test_one_late_ask_does_not_spoil_its_group(desk):
    late = desk.pending("late", deadline_ms=1)
    time.sleep(0.01)
    answers = desk.answerer.answer([late, desk.pending("fine")])
    assert [a.outcome for a in answers] == ["expired", "ok"]


@pytest.mark.parametrize("data", [jpeg()[:300], b"\xff\xd8\xff junk", jpeg() * 5000])
def test_ask_fails_when_the_picture_is_damaged_or_too_large(data):
    answer = Desk().one(picture=data)
    assert outcome(answer) == ("error", "bad_picture")
    assert "\n" not in answer.error.message


def test_too_long_a_prompt_fails_alone_and_the_others_are_answered():
    desk = Desk(ShortEngine())
    desk.frames.put("porch", jpeg())
    group = [desk.pending("a", question="short"), desk.pending("b", question="x" * 50)]
    first, second = desk.answerer.answer(group)
    assert (first.outcome, first.answer) == ("ok", "ok")
    assert outcome(second) == ("error", "prompt_too_long")


def test_self_test_counts_as_a_success(desk):
    assert desk.answerer.last_success_s == float("-inf")
    desk.answerer.self_test()
    assert time.monotonic() - desk.answerer.last_success_s < 5
