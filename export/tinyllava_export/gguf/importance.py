"""How much each input of each weight matrix matters, so that few bits go where they count.

What llama.cpp calls an importance matrix: the mean square of every input of a matrix product,
over calibration prompts with their pictures. A quantizer then rounds a weight with regard to the
size of what it is multiplied with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tinyllava_export.calibration import Calibration, CalibrationItem
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.gguf.tensor_layout import PREFIX, place_tensors
from tinyllava_export.source import Source, source_pixels

Importance = Mapping[str, NDArray[np.float32]]
# Tokens of answer that are run through the model too, for their share of words.
ANSWER_TOKENS = 16


def measure_importance(
    checkpoint: Checkpoint, source: Source, calibration: Calibration
) -> Importance:
    """Mean squares ``[inputs]`` of each matrix of the language model, by its name in GGUF.

    Runs the float32 source on the first question of each picture.
    """
    targets = {placed.source: placed.target for placed in place_tensors(checkpoint)}
    modules = {
        targets[f"{PREFIX}{name}.weight"]: module
        for name, module in source.language_model.named_modules()
        if isinstance(module, nn.Linear) and f"{PREFIX}{name}.weight" in targets
    }
    with _watched(modules) as squares:
        for item in _one_a_picture(calibration):
            embeds = source.see(source_pixels(item.picture, source.semantics.image))
            source.answer(embeds, item.question, item.readings, max_tokens=ANSWER_TOKENS)
    return {target: square.mean() for target, square in squares.items()}


class _MeanSquare:
    """A running mean of the squares of a module's inputs, in float64."""

    def __init__(self, inputs: int) -> None:
        self._sums = torch.zeros(inputs, dtype=torch.float64)
        self._rows = 0

    def add(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Take in what a module is about to be given, ``[..., inputs]``."""
        del module
        rows = arguments[0].reshape(-1, len(self._sums))
        self._sums += rows.double().square().sum(dim=0)
        self._rows += len(rows)

    def mean(self) -> NDArray[np.float32]:
        """Per input."""
        means: NDArray[np.float32] = (self._sums / self._rows).float().numpy()
        return means


@contextmanager
def _watched(modules: Mapping[str, nn.Linear]) -> Iterator[dict[str, _MeanSquare]]:
    """Collect what goes into modules while the context is open."""
    with ExitStack() as hooks:
        squares = {}
        for name, module in modules.items():
            squares[name] = _MeanSquare(module.in_features)
            hooks.callback(module.register_forward_pre_hook(squares[name].add).remove)
        yield squares


def _one_a_picture(calibration: Calibration) -> list[CalibrationItem]:
    first: dict[str, CalibrationItem] = {}
    for item in calibration.items:
        first.setdefault(item.key, item)
    return list(first.values())
