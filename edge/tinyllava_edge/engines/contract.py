"""What every engine promises: see a picture once, answer many questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from PIL.Image import Image

from tinyllava_edge.prompt import Reading

Kind = Literal["text", "yes_no", "choice"]
Verdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Question:
    """One question on one sight. ``choices`` is for kind ``choice`` only."""

    text: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    max_tokens: int = 32


@dataclass(frozen=True)
class Sight:
    """A picture that the engine has seen; ``key`` is the sha256 of the picture's bytes."""

    key: str
    image_tokens: int
    vision_ms: float


@dataclass(frozen=True)
class Reply:
    """The answer to one question.

    ``confidence`` (0..1) is the probability of the answer among those allowed (yes_no, choice),
    or of the whole greedy text. ``verdict`` is set for yes_no. ``token_ids`` are the answer's.
    """

    text: str
    token_ids: tuple[int, ...]
    confidence: float
    prompt_tokens: int
    verdict: Verdict | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """An open bundle. Not thread-safe: one thread asks."""

    name: str

    def see(self, picture: Image, key: str) -> Sight:
        """Encode a decoded picture, or return the sight kept for the same key."""

    def ask(self, sight: Sight, questions: Sequence[Question]) -> list[Reply]:
        """Answer questions on one sight, in order; each costs its own tokens only."""

    def close(self) -> None:
        """Free native memory; the engine is unusable afterwards."""
