"""An engine that answers from a script: for tests of whatever asks one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tinyllava_edge.engines.contract import Reply, Sight
from tinyllava_edge.errors import AskError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from tinyllava_edge.engines.contract import Question, Verdict


class FakeEngine:
    """Keeps the engine contract without a model.

    ``script`` maps a question's text to its answer; others get ``default``. yes_no answers that
    are neither yes nor no become unknown, choices that are not offered become the first one.
    ``delay_s`` is slept in every ``ask``. Counts ``seen`` pictures, ``asked`` questions and
    ``batches``; ``closed`` tells whether it was closed.
    """

    def __init__(
        self,
        script: Mapping[str, str] | None = None,
        *,
        default: str = "ok",
        delay_s: float = 0.0,
        confidence: float = 0.9,
    ) -> None:
        self.name = "fake"
        self.seen = 0
        self.asked = 0
        self.batches = 0
        self.closed = False
        self._script = dict(script or {})
        self._default = default
        self._delay_s = delay_s
        self._confidence = confidence
        self._sights: dict[str, Sight] = {}

    def see(self, picture: Image, key: str) -> Sight:
        """Count a picture that was not seen before."""
        picture.load()
        if key not in self._sights:
            self.seen += 1
            self._sights[key] = Sight(key, image_tokens=1, vision_ms=0.0)
        return self._sights[key]

    def ask(self, sight: Sight, questions: Sequence[Question]) -> list[Reply]:
        """Answer from the script, after the delay."""
        if sight.key not in self._sights:
            raise AskError("sight_gone", f"picture {sight.key[:12]} was never seen; see it first")
        self.batches += 1
        self.asked += len(questions)
        time.sleep(self._delay_s)
        return [self._reply(question) for question in questions]

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _reply(self, question: Question) -> Reply:
        text = self._script.get(question.text, self._default)
        verdict: Verdict | None = None
        probabilities: dict[str, float] = {}
        if question.kind == "yes_no":
            verdict = "yes" if text == "yes" else "no" if text == "no" else "unknown"
            text = verdict
            probabilities = self._shares(("yes", "no", "unknown"), text)
        elif question.kind == "choice":
            text = text if text in question.choices else question.choices[0]
            probabilities = self._shares(question.choices, text)
        return Reply(
            text=text,
            token_ids=tuple(text.encode()),
            confidence=self._confidence,
            prompt_tokens=1 + len(question.text.split()),
            verdict=verdict,
            probabilities=probabilities,
            timings_ms=dict.fromkeys(("vision", "prefix", "prompt", "decode", "total"), 0.0),
        )

    def _shares(self, options: Sequence[str], chosen: str) -> dict[str, float]:
        rest = (1 - self._confidence) / max(1, len(options) - 1)
        return {option: self._confidence if option == chosen else rest for option in options}
