"""Score a checkpoint or a bundle: exact match by kind, and the same with the picture blanked."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tinyllava_train.answerers import Answerer
from tinyllava_train.conversations import Turn
from tinyllava_train.panels.bench import QUESTIONS_PER_PICTURE, BenchPicture, bench_pictures
from tinyllava_train.panels.questions import PanelQuestion
from tinyllava_train.progress import track

_BLANK = (127, 127, 127)


@dataclass(frozen=True)
class Scored:
    """One question with what was answered, with the picture and without it."""

    picture: str
    question: PanelQuestion
    answer: str
    blind_answer: str

    @property
    def right(self) -> bool:
        """Exact match."""
        return self.answer == self.question.answer

    @property
    def blind_right(self) -> bool:
        """Exact match without the picture: what the question alone gives away."""
        return self.blind_answer == self.question.answer


@dataclass(frozen=True)
class PanelsScore:
    """Shares of exact matches, 0..1."""

    accuracy: float
    by_kind: dict[str, float]
    blind_accuracy: float
    questions: int
    seed: int

    def as_json(self) -> dict[str, Any]:
        """With shares rounded to four places."""
        facts = asdict(self)
        facts["accuracy"] = round(self.accuracy, 4)
        facts["blind_accuracy"] = round(self.blind_accuracy, 4)
        facts["by_kind"] = {kind: round(share, 4) for kind, share in self.by_kind.items()}
        return facts


def evaluate_panels(
    answerer: Answerer, *, seed: int, questions: int, answers_file: Path | None = None
) -> PanelsScore:
    """Ask ``questions`` test questions of ``seed``; write each answer to a JSONL file if named."""
    scored: list[Scored] = []
    pictures = bench_pictures(seed, questions)
    for picture in track(pictures, "asking", -(-questions // QUESTIONS_PER_PICTURE)):
        scored += _ask(answerer, picture)
    if answers_file is not None:
        rows = (_row(one) for one in scored)
        answers_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return _score(scored, seed)


def _ask(answerer: Answerer, picture: BenchPicture) -> list[Scored]:
    with Image.open(io.BytesIO(picture.photo)) as opened:
        image = opened.convert("RGB")
    turns = [Turn(q.text, q.answer, q.readings, q.kind) for q in picture.questions]
    seen = answerer.answer(image, picture.name, turns)
    blank = Image.new("RGB", image.size, _BLANK)
    blind = answerer.answer(blank, f"blank {image.size}", turns)
    return [Scored(picture.name, *one) for one in zip(picture.questions, seen, blind, strict=True)]


def _score(scored: list[Scored], seed: int) -> PanelsScore:
    kinds: dict[str, list[bool]] = defaultdict(list)
    for one in scored:
        kinds[one.question.kind].append(one.right)
    return PanelsScore(
        accuracy=sum(one.right for one in scored) / len(scored),
        by_kind={kind: sum(right) / len(right) for kind, right in sorted(kinds.items())},
        blind_accuracy=sum(one.blind_right for one in scored) / len(scored),
        questions=len(scored),
        seed=seed,
    )


def _row(one: Scored) -> dict[str, Any]:
    return {
        "picture": one.picture,
        "kind": one.question.kind,
        "question": one.question.text,
        "readings": [asdict(reading) for reading in one.question.readings],
        "truth": one.question.answer,
        "answer": one.answer,
        "blind_answer": one.blind_answer,
        "right": one.right,
    }
