"""From asks on one picture to their answers, through the engine. Knows nothing of MQTT."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from tinyllava_edge.engines.contract import Engine, Question, Reply, Sight
from tinyllava_edge.errors import AskError, PictureError, PromptTooLong
from tinyllava_edge.frames import Frame, FrameStore
from tinyllava_edge.messages import Answer, OneAnswer, SensorUsed, failure
from tinyllava_edge.pictures import PictureLimits, decode_picture, picture_key
from tinyllava_edge.prompt import Reading
from tinyllava_edge.schedule import Pending
from tinyllava_edge.sensors import SensorBoard


@dataclass(frozen=True)
class _Look:
    """What a group of asks is about: the picture's bytes, their hash, and the frame if any."""

    data: bytes
    key: str
    frame: Frame | None


class Answerer:
    """Answers groups of asks with one open engine, in the thread that opened it."""

    def __init__(
        self, engine: Engine, frames: FrameStore, sensors: SensorBoard, limits: PictureLimits
    ) -> None:
        self._engine = engine
        self._frames = frames
        self._sensors = sensors
        self._limits = limits
        self.last_success_s = float("-inf")

    def self_test(self) -> None:
        """Look at a grey picture and answer; raises what the engine raises."""
        picture = Image.new("RGB", (64, 64), (127, 127, 127))
        sight = self._engine.see(picture, "self-test")
        self._engine.ask(sight, [Question("Is this a picture?", "yes_no", max_tokens=1)])
        self.last_success_s = time.monotonic()

    def answer(self, group: Sequence[Pending]) -> list[Answer]:
        """One answer per ask, in order. The asks share a key, so they share a picture.

        An ask whose deadline has passed, or whose frame is too old, costs nothing. Only what
        the engine itself raises beyond its contract leaves this method.
        """
        answers: dict[str, Answer] = {}
        try:
            look = self._look(group[0])
            ready = []
            for pending in group:
                questions = self._prepare(pending, look)
                if isinstance(questions, Answer):
                    answers[pending.ask.id] = questions
                else:
                    ready.append((pending, questions))
            if ready:
                answers.update(self._answer_ready(look, ready))
        except AskError as error:
            for pending in group:
                answers.setdefault(pending.ask.id, _failure(pending, error))
        return [answers[pending.ask.id] for pending in group]

    def _prepare(self, pending: Pending, look: _Look) -> list[Question] | Answer:
        """The questions of an ask, or already its answer where it cannot be carried out."""
        try:
            self._check_timely(pending, look.frame)
            return self._questions(pending)
        except AskError as error:
            return _failure(pending, error)

    def _look(self, pending: Pending) -> _Look:
        if pending.picture is not None:
            return _Look(pending.picture, picture_key(pending.picture), None)
        camera = pending.ask.camera or ""
        frame = self._frames.latest(camera)
        if frame is None:
            raise AskError("no_frame", f"camera {camera}: no frame has arrived yet; ask again")
        return _Look(frame.data, frame.sha256, frame)

    def _check_timely(self, pending: Pending, frame: Frame | None) -> None:
        if time.monotonic() >= pending.deadline_s:
            raise AskError("deadline", f"deadline of {pending.ask.deadline_ms} ms has passed")
        limit_ms = pending.ask.max_age_ms
        if frame is not None and limit_ms is not None and frame.age_ms() > limit_ms:
            raise AskError(
                "frame_too_old",
                f"camera {frame.camera}: latest frame is {frame.age_ms()} ms old, "
                f"max_age_ms is {limit_ms}",
            )

    def _questions(self, pending: Pending) -> list[Question]:
        ask = pending.ask
        readings = tuple(self._reading(name) for name in ask.sensors)
        assert ask.kind != "json", "parse_ask refuses it"
        return [
            Question(text, ask.kind, ask.choices, readings, ask.max_tokens) for text in ask.texts
        ]

    def _reading(self, name: str) -> Reading:
        reading = self._sensors.reading(name)
        if reading is None:
            known = ", ".join(self._sensors.names()[:20]) or "none"
            raise AskError("no_reading", f"sensor {name!r}: no reading; sensors known: {known}")
        return reading

    def _answer_ready(
        self, look: _Look, ready: Sequence[tuple[Pending, list[Question]]]
    ) -> dict[str, Answer]:
        try:
            picture = decode_picture(look.data, self._limits)
        except PictureError as error:
            raise AskError("bad_picture", str(error)) from None
        sight = self._engine.see(picture, look.key)
        answers = {}
        for (pending, questions), replies in zip(ready, self._ask(sight, ready), strict=True):
            if isinstance(replies, PromptTooLong):
                too_long = AskError("prompt_too_long", str(replies))
                answers[pending.ask.id] = _failure(pending, too_long)
                continue
            answers[pending.ask.id] = self._finished(pending, look, sight, questions, replies)
        self.last_success_s = time.monotonic()
        return answers

    def _ask(
        self, sight: Sight, ready: Sequence[tuple[Pending, list[Question]]]
    ) -> list[list[Reply] | PromptTooLong]:
        """All questions in one batch; where one is too long, each ask by itself."""
        try:
            flat = self._engine.ask(sight, [q for _, questions in ready for q in questions])
        except PromptTooLong as error:
            if len(ready) == 1:
                return [error]
            return [self._ask(sight, [one])[0] for one in ready]
        replies = iter(flat)
        return [[next(replies) for _ in questions] for _, questions in ready]

    def _finished(
        self,
        pending: Pending,
        look: _Look,
        sight: Sight,
        questions: Sequence[Question],
        replies: Sequence[Reply],
    ) -> Answer:
        """The good answer, unless it comes too late for its deadline or its frame's age."""
        try:
            self._check_timely(pending, look.frame)
        except AskError as error:
            return _failure(pending, error)
        several = pending.ask.question is None
        one = None if several else replies[0]
        return Answer(
            id=pending.ask.id,
            outcome="ok",
            answer=one.text if one else None,
            verdict=one.verdict if one else None,
            confidence=round(one.confidence, 4) if one else None,
            answers=_each(questions, replies) if several else None,
            camera=pending.ask.camera,
            captured_at=look.frame.captured_at if look.frame else None,
            age_ms=look.frame.age_ms() if look.frame else None,
            frame_seq=look.frame.seq if look.frame else None,
            frame_sha256=look.key,
            sensors=tuple(_used(reading) for reading in questions[0].readings),
            model=self._engine.name,
            timings_ms=_timings(pending, sight, replies),
        )


def _each(questions: Sequence[Question], replies: Sequence[Reply]) -> tuple[OneAnswer, ...]:
    return tuple(
        OneAnswer(
            question=question.text,
            answer=reply.text,
            verdict=reply.verdict,
            confidence=round(reply.confidence, 4),
        )
        for question, reply in zip(questions, replies, strict=True)
    )


def _used(reading: Reading) -> SensorUsed:
    return SensorUsed(
        name=reading.name,
        value=reading.value,
        unit=reading.unit,
        age_s=reading.age_s,
        stale=reading.stale,
    )


def _timings(pending: Pending, sight: Sight, replies: Sequence[Reply]) -> dict[str, float]:
    """The engine's own timings (the longest of several questions) and the time since arrival."""
    timings = {"vision": sight.vision_ms}
    for reply in replies:
        for name, value in reply.timings_ms.items():
            timings[name] = max(timings.get(name, 0.0), value)
    timings["since_ask"] = pending.waited_ms()
    return {name: round(value, 2) for name, value in timings.items()}


def _failure(pending: Pending, error: AskError) -> Answer:
    return failure(pending.ask.id, error.code, str(error), pending.ask.camera)
