"""Optimizer and learning rate of a stage.

Matrices inside the layers are trained with Muon (Jordan et al. 2024), which takes far fewer steps
than AdamW on these small models; embeddings, norms and biases with AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from tinyllava_train.recipe import Stage

_BETAS = (0.9, 0.95)
_LARGEST_GRADIENT = 5.0


class StageOptimizer:
    """Muon and AdamW over named parameters, with warm-up and cosine decay to zero."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], stage: Stage) -> None:
        named = list(parameters)
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        self._stage = stage
        self._parameters = [p for _, p in named]
        self._peaks = [stage.matrix_learning_rate, stage.learning_rate]
        self._optimizers: list[Optimizer] = [
            Muon(
                matrices,
                lr=stage.matrix_learning_rate,
                weight_decay=stage.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            AdamW(others, lr=stage.learning_rate, weight_decay=0.0, betas=_BETAS),
        ]

    def step(self, number: int, steps: int) -> float:
        """Apply the gradients at step ``number`` of ``steps``; the gradient's norm."""
        factor = schedule(number, steps, self._stage.warmup)
        norm = nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT)
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state(self) -> list[dict[str, Tensor]]:
        """For a checkpoint."""
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load(self, state: list[dict[str, Tensor]]) -> None:
        """Go on from a checkpoint's state."""
        for optimizer, one in zip(self._optimizers, state, strict=True):
            optimizer.load_state_dict(one)


def schedule(number: int, steps: int, warmup: float) -> float:
    """Share of the peak rate: rises over ``warmup`` of the steps, then falls as a cosine to 0."""
    rising = max(1, round(steps * warmup))
    if number < rising:
        return (number + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (number - rising) / max(1, steps - rising)))
