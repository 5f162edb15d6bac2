"""What a stage minimizes. Each objective makes its own batches and turns them into a loss."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, SiglipVisionModel

from tinyllava_train.batches import IGNORED, Batch
from tinyllava_train.choice import CAPTION_KIND, TurnChoice, captions, weighted
from tinyllava_train.conversations import Encoder, Sample
from tinyllava_train.feed import Dataset
from tinyllava_train.recipe import Stage


class Objective(Protocol):
    """A loss over a dataset."""

    @property
    def extra(self) -> nn.Module:
        """Modules that only this stage needs; trained along, not part of the checkpoint."""

    def loss(self, dataset: Dataset, indices: list[int], seed: int, done: float) -> Tensor:
        """The loss on some pictures, a scalar with gradient; ``done``: share of the stage."""


def next_token_loss(model: LlavaForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over the supervised tokens, and which of them were predicted right.

    The vocabulary projection runs on supervised positions only: they are one in five.
    """
    hidden = model.model(
        input_ids=batch.input_ids,
        pixel_values=batch.pixels,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    supervised = batch.labels != IGNORED
    logits = model.lm_head(hidden[supervised]).float()
    targets = batch.labels[supervised]
    return functional.cross_entropy(logits, targets), logits.detach().argmax(-1) == targets


class Answering:
    """Next-token prediction of answers: on questions or captions, with or without the picture."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        choice: Callable[[float], TurnChoice],
        *,
        with_pictures: bool,
    ) -> None:
        self.extra = nn.Module()
        self._model = model
        self._choice = choice
        self._with_pictures = with_pictures

    def loss(self, dataset: Dataset, indices: list[int], seed: int, done: float) -> Tensor:
        """Mean cross-entropy of the answers' tokens."""
        choose = self._choice(done)
        batch = dataset.batch(indices, choose, seed=seed, with_pictures=self._with_pictures)
        return next_token_loss(self._model, batch.to(self._model.device))[0]


class Matching:
    """SigLIP's sigmoid loss between pictures and statements.

    A caption is a list of statements; every statement of the dataset is matched with every picture
    of the batch, +1 where the picture's caption holds it and -1 where it does not (Zhai et al.
    2023, with several true statements a picture in place of one). SigLIP pools a picture with one
    query; here each statement is a query of its own, since statements are about places.
    """

    def __init__(self, model: LlavaForConditionalGeneration, dataset: Dataset) -> None:
        width = model.model.vision_tower.config.hidden_size
        self._model = model
        self._statements = sorted({s for sample in dataset.samples for s in _statements(sample)})
        self._words = _joined_ids(self._statements, dataset.encoder)
        self.extra = _Matcher(width, len(dataset.encoder.tokenizer))

    def loss(self, dataset: Dataset, indices: list[int], seed: int, done: float) -> Tensor:
        """Sum over statements, mean over pictures."""
        del done
        device = self._model.device
        tower: SiglipVisionModel = self._model.model.vision_tower
        pixels = dataset.pixels(indices, seed).to(device)
        layers = tower(pixels, output_hidden_states=True).hidden_states
        features = layers[dataset.semantics.tower.feature_layer]
        ids, offsets = (part.to(device) for part in self._words)
        logits = self.extra(features, ids, offsets)
        truth = [set(_statements(dataset.samples[i])) for i in indices]
        signs = torch.tensor(
            [[1.0 if s in row else -1.0 for s in self._statements] for row in truth]
        )
        return -functional.logsigmoid(signs.to(device) * logits).sum(-1).mean()


class _Matcher(nn.Module):
    """Scores pictures against statements: each statement looks for its place, then compares."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.words = nn.EmbeddingBag(vocabulary, width, mode="mean")
        self.read = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.look_for = nn.Linear(width, width)
        self.compare_with = nn.Linear(width, width)
        # SigLIP's initial bias answers for the many false pairs.
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, features: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
        """Features ``[B, N, W]`` and ``S`` statements' token ids, end to end, to ``[B, S]``."""
        read = self.read(self.words(ids, offsets))
        features = self.norm(features)
        scale = features.shape[-1] ** -0.5
        attention = (self.look_for(read) @ features.mT * scale).softmax(-1)
        scores = self.compare_with(read) @ features.mT * scale
        return (attention * scores).sum(-1) + self.bias


def _statements(sample: Sample) -> list[str]:
    return [s for t in sample.turns if t.kind == CAPTION_KIND for s in t.answer.split(", ")]


def _joined_ids(statements: Iterable[str], encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Token ids of all statements end to end, and where each begins."""
    rows = [encoder.tokenizer(s, add_special_tokens=False).input_ids for s in statements]
    starts = [0, *itertools.accumulate(len(row) for row in rows)][:-1]
    return torch.tensor([token for row in rows for token in row]), torch.tensor(starts)


def make_objective(
    stage: Stage, model: LlavaForConditionalGeneration, dataset: Dataset
) -> Objective:
    """The objective that a stage names."""
    if stage.objective == "match":
        return Matching(model, dataset)
    if stage.objective == "caption":
        return Answering(model, lambda _done: captions, with_pictures=True)
    return Answering(
        model,
        functools.partial(weighted, stage.turns, stage.weights),
        with_pictures=stage.objective == "conversation",
    )
