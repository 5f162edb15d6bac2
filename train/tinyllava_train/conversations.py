"""LLaVA JSON samples, read and turned into token ids exactly as the engine writes prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tinyllava_edge.prompt import Reading, prefix_text, question_text
from tinyllava_edge.semantics import Semantics
from tinyllava_train.errors import DataError


@dataclass(frozen=True)
class Turn:
    """One question on the sample's picture, and its answer."""

    question: str
    answer: str
    readings: tuple[Reading, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Sample:
    """A picture with the questions on it."""

    id: str
    image: Path
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class EncodedTurn:
    """Token ids of the text after the picture, and of the supervised answer with its EOS."""

    prompt: list[int]
    answer: list[int]


def read_samples(listing: Path, images: Path) -> list[Sample]:
    """Read a LLaVA JSON file. Raises ``DataError`` with the id of the first broken sample."""
    try:
        rows = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{listing}: {error}; expected a LLaVA JSON list of samples") from None
    if not isinstance(rows, list):
        raise DataError(f"{listing}: holds a {type(rows).__name__}; expected a list of samples")
    return [_sample(row, images) for row in rows]


def _sample(row: dict[str, Any], images: Path) -> Sample:
    try:
        turns = row["conversations"]
        humans, models = turns[::2], turns[1::2]
        if not turns or len(humans) != len(models):
            raise DataError(
                f"sample {row['id']}: {len(turns)} turns; expected question-answer pairs"
            )
        if any(t["from"] != "human" for t in humans) or any(t["from"] != "gpt" for t in models):
            raise DataError(f"sample {row['id']}: turns must go human, gpt, human, gpt, ...")
        sensors = row.get("sensors") or [None] * len(humans)
        kinds = row.get("kinds") or [""] * len(humans)
        return Sample(
            str(row["id"]),
            images / row["image"],
            tuple(
                Turn(_without_marker(human["value"]), model["value"], _readings(readings), kind)
                for human, model, readings, kind in zip(humans, models, sensors, kinds, strict=True)
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        name = row.get("id", "?") if isinstance(row, dict) else "?"
        raise DataError(f"sample {name}: {type(error).__name__}: {error}") from None


def _without_marker(question: str) -> str:
    return question.replace("<image>\n", "").replace("\n<image>", "").replace("<image>", "")


def _readings(rows: list[dict[str, Any]] | None) -> tuple[Reading, ...]:
    return tuple(Reading(**row) for row in rows or ())


def prompt_texts(samples: Iterable[Sample], semantics: Semantics) -> Iterator[str]:
    """Every piece of text of the samples as prompts write it, for training a tokenizer."""
    yield prefix_text(semantics)
    for sample in samples:
        for turn in sample.turns:
            yield question_text(turn.question, turn.readings, semantics)
            yield semantics.prompt.answer_lead + turn.answer


class Encoder:
    """Tokenizes prefix, questions and answers piece by piece, as at run time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, semantics: Semantics) -> None:
        self.tokenizer = tokenizer
        self.semantics = semantics
        bos = semantics.prompt.bos_token_id
        self.prefix = ([] if bos is None else [bos]) + self._ids(prefix_text(semantics))
        self.eos = semantics.prompt.eos_token_ids[0]

    def _ids(self, text: str) -> list[int]:
        # split_special_tokens: no text can turn into a control token.
        ids: list[int] = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True
        ).input_ids
        return ids

    def prompt(self, turn: Turn) -> list[int]:
        """Ids of what follows the picture, up to where the model answers."""
        return self._ids(question_text(turn.question, turn.readings, self.semantics))

    def turn(self, turn: Turn) -> EncodedTurn:
        """Prompt ids and answer ids; the answer ends with EOS."""
        answer = self._ids(self.semantics.prompt.answer_lead + turn.answer)
        return EncodedTurn(self.prompt(turn), [*answer, self.eos])
