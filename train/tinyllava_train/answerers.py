"""Who answers in an evaluation: a checkpoint through torch, or a bundle through edge's engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from tinyllava_edge.bundle import open_bundle
from tinyllava_edge.engines.choose import open_engine
from tinyllava_edge.engines.contract import Question
from tinyllava_edge.errors import BundleError
from tinyllava_edge.manifest import FILE_NAME as MANIFEST
from tinyllava_edge.preprocess import pixels
from tinyllava_edge.semantics import FILE_NAME as SEMANTICS
from tinyllava_train.checkpoint import load_checkpoint
from tinyllava_train.conversations import Encoder, Turn

_MOST_TOKENS = 16


class Answerer(Protocol):
    """Answers questions about one picture, greedily, each as if asked alone."""

    def answer(self, picture: Image.Image, key: str, turns: Sequence[Turn]) -> list[str]:
        """The answers in order, without surrounding white space. ``key`` names the picture."""


class BundleAnswerer:
    """A bundle, through the engine that the gateway runs."""

    def __init__(self, folder: Path) -> None:
        self._engine = open_engine(open_bundle(folder))

    def answer(self, picture: Image.Image, key: str, turns: Sequence[Turn]) -> list[str]:
        """See the picture once, ask everything."""
        sight = self._engine.see(picture, key)
        asked = [
            Question(turn.question, readings=turn.readings, max_tokens=_MOST_TOKENS)
            for turn in turns
        ]
        return [reply.text.strip() for reply in self._engine.ask(sight, asked)]


class CheckpointAnswerer:
    """A checkpoint in float32, through transformers' own generation: one prompt a question."""

    def __init__(self, folder: Path) -> None:
        self._model, tokenizer, self._semantics = load_checkpoint(folder)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._encoder = Encoder(tokenizer, self._semantics)
        self._image_token = int(self._model.config.image_token_index)
        self._pad = int(tokenizer.pad_token_id)

    @torch.no_grad()
    def answer(self, picture: Image.Image, key: str, turns: Sequence[Turn]) -> list[str]:
        """Generate for all questions on the picture in one left-padded batch."""
        del key
        ids, mask = self._prompts(turns)
        image = torch.from_numpy(pixels(picture, self._semantics.image))
        device = self._model.device
        written = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            pixel_values=image.expand(len(turns), -1, -1, -1).to(device),
            max_new_tokens=_MOST_TOKENS,
            do_sample=False,
            eos_token_id=list(self._semantics.prompt.eos_token_ids),
            pad_token_id=self._pad,
        )
        answers = written[:, ids.shape[1] :]
        texts: list[str] = self._encoder.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _prompts(self, turns: Sequence[Turn]) -> tuple[Tensor, Tensor]:
        picture = [self._image_token] * self._semantics.connector.image_tokens
        rows = [[*self._encoder.prefix, *picture, *self._encoder.prompt(turn)] for turn in turns]
        longest = max(len(row) for row in rows)
        ids = [[self._pad] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids), torch.tensor(mask)


def open_answerer(folder: Path) -> Answerer:
    """A bundle or a checkpoint, by what the folder holds. Raises ``BundleError`` for neither."""
    if (folder / MANIFEST).is_file():
        return BundleAnswerer(folder)
    if (folder / SEMANTICS).is_file():
        return CheckpointAnswerer(folder)
    raise BundleError(f"{folder}: neither a bundle ({MANIFEST}) nor a checkpoint ({SEMANTICS})")
