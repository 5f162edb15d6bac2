"""The checkpoint folder: what transformers reads alone, plus what the weights do not say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import (
    AutoTokenizer,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tinyllava_edge.semantics import Semantics, read_semantics, write_semantics
from tinyllava_train.conversations import Sample

_CALIBRATION_PICTURES = 12


def save_checkpoint(
    folder: Path,
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    semantics: Semantics,
    *,
    card: str,
    calibration: Sequence[Sample],
) -> None:
    """Write weights, tokenizer, ``tinyllava.json``, model card and calibration pictures.

    The folder appears complete or not at all. ``calibration`` are pictures that were not trained
    on; export measures its losses on them.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_semantics(semantics, partial)
    (partial / "README.md").write_text(card, encoding="utf-8")
    _write_calibration(partial / "calibration", calibration[:_CALIBRATION_PICTURES])
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _write_calibration(folder: Path, samples: Sequence[Sample]) -> None:
    folder.mkdir()
    rows = []
    for sample in samples:
        shutil.copy(sample.image, folder / sample.image.name)
        rows += [
            {
                "picture": sample.image.name,
                "question": turn.question,
                "readings": [asdict(reading) for reading in turn.readings],
            }
            for turn in sample.turns[:4]
        ]
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    (folder / "questions.json").write_text(text + "\n", encoding="utf-8")


def load_checkpoint(
    folder: Path,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerBase, Semantics]:
    """Model in float32 for evaluation, tokenizer and semantics."""
    semantics = read_semantics(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype="float32")
    return model.eval(), AutoTokenizer.from_pretrained(folder), semantics
