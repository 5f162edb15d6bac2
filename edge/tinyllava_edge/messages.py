"""What travels over MQTT in JSON: asks in, answers out. Nothing from outside passes unread.

A refusal is an ``AskError`` whose code decides the outcome of the answer, see ``outcome_of``.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from tinyllava_edge.errors import AskError

MAX_QUESTION_CHARS = 1000
MAX_CHOICE_CHARS = 64
MAX_CHOICES = 32
MAX_QUESTIONS = 64
MAX_TOKENS = 512
MAX_TIME_MS = 24 * 60 * 60 * 1000
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Outcome = Literal["ok", "error", "expired", "rejected", "dropped"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}\z")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
QuestionText = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_CHARS)]
ChoiceText = Annotated[str, Field(min_length=1, max_length=MAX_CHOICE_CHARS)]

# Where an ask is refused for what it wants or for when it comes, not for a fault in it or ours.
_OUTCOMES: dict[str, Outcome] = {
    "unsupported": "rejected",
    "queue_full": "rejected",
    "reply_to_not_allowed": "rejected",
    "retained": "rejected",
    "too_many_questions": "rejected",
    "stopping": "rejected",
    "deadline": "expired",
    "frame_too_old": "expired",
    "stopped": "dropped",
}


class Ask(BaseModel):
    """One request: questions on a camera's latest frame, or on the picture it brings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Id
    camera: Name | None = None
    image: str | None = Field(None, description="a JPEG, PNG or WebP picture in base64")
    question: QuestionText | None = None
    questions: tuple[QuestionText, ...] = Field((), max_length=MAX_QUESTIONS)
    kind: Literal["text", "yes_no", "choice", "json"] = "text"
    choices: tuple[ChoiceText, ...] = Field((), max_length=MAX_CHOICES)
    answer_schema: dict[str, Any] | None = Field(None, alias="schema")
    sensors: tuple[Name, ...] = Field((), max_length=16)
    max_tokens: int = Field(32, ge=1, le=MAX_TOKENS)
    deadline_ms: int | None = Field(None, ge=1, le=MAX_TIME_MS)
    max_age_ms: int | None = Field(None, ge=0, le=MAX_TIME_MS)
    priority: int = Field(5, ge=0, le=9, description="9 goes first")
    stream: bool = False
    reply_to: str | None = Field(None, min_length=1, max_length=256)

    @model_validator(mode="after")
    def _consistent(self) -> Ask:
        if (self.camera is None) == (self.image is None):
            raise ValueError("give either camera or image")
        if (self.question is None) == (not self.questions):
            raise ValueError("give either question or questions")
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError("choices go with kind choice, and kind choice needs them")
        if self.choices and not 2 <= len(self.choices) == len(set(self.choices)):
            raise ValueError("choices must be two or more, all different")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """The questions, however they were given."""
        return self.questions if self.question is None else (self.question,)


class AnswerError(BaseModel):
    """Why there is no answer: a code for programs, a line for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    message: str


class SensorUsed(BaseModel):
    """A reading as it stood in the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: str
    unit: str
    age_s: int
    stale: bool


class OneAnswer(BaseModel):
    """The answer to one of several questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    answer: str
    verdict: Literal["yes", "no", "unknown"] | None
    confidence: float


class Answer(BaseModel):
    """The one terminal outcome of an ask. Every field is always there, null where it is empty.

    ``answers`` stands in for ``answer``, ``verdict`` and ``confidence`` where the ask had
    ``questions``. ``age_ms`` is the frame's age when the answer was published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    outcome: Outcome
    answer: str | None = None
    verdict: Literal["yes", "no", "unknown"] | None = None
    confidence: float | None = None
    answers: tuple[OneAnswer, ...] | None = None
    camera: str | None = None
    captured_at: str | None = None
    age_ms: int | None = None
    frame_seq: int | None = None
    frame_sha256: str | None = None
    sensors: tuple[SensorUsed, ...] = ()
    model: str | None = None
    timings_ms: dict[str, float] = Field(default_factory=dict)
    error: AnswerError | None = None

    def to_bytes(self) -> bytes:
        """The payload as it is published."""
        return self.model_dump_json().encode()


def outcome_of(code: str) -> Outcome:
    """The outcome that an error code belongs to; ``error`` unless the table says otherwise."""
    return _OUTCOMES.get(code, "error")


def failure(ask_id: str, code: str, message: str, camera: str | None = None) -> Answer:
    """The answer to an ask that has none."""
    error = AnswerError(code=code, message=message)
    return Answer(id=ask_id, outcome=outcome_of(code), camera=camera, error=error)


def parse_ask(payload: bytes) -> Ask:
    """Read an ask. Raises ``AskError`` and nothing else, whatever the bytes."""
    try:
        ask = Ask.model_validate_json(payload)
    except ValidationError as error:
        raise AskError("invalid_ask", _first_fault(error)) from None
    if ask.kind == "json" or ask.answer_schema is not None:
        raise AskError("unsupported", "kind json and schema are not supported; use text or choice")
    if ask.stream:
        raise AskError("unsupported", "stream is not supported; leave it out")
    return ask


def read_id(payload: bytes) -> str | None:
    """The id of an ask that could not be parsed, if there is a usable one to answer to."""
    try:
        data = from_json(payload)
    except ValueError:
        return None
    ask_id = data.get("id") if isinstance(data, dict) else None
    return ask_id if isinstance(ask_id, str) and _ID.fullmatch(ask_id) else None


def picture_bytes(ask: Ask) -> bytes:
    """The picture that came with the ask. Raises ``AskError`` where it is not base64."""
    try:
        return base64.b64decode(ask.image or "", validate=True)
    except (binascii.Error, ValueError):
        raise AskError(
            "bad_picture", "field image is not base64; send plain base64 without a data: prefix"
        ) from None


def _first_fault(error: ValidationError) -> str:
    """One line: which field, what is wrong, without echoing the payload."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    text = " ".join(first["msg"].split())[:160]
    return f"{f'field {where}' if where else 'ask'}: {text}"
