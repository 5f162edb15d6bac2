"""Filling a module from a checkpoint, one tensor at a time, and what is refused on the way."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError


@torch.no_grad()
def fill(targets: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Copy into each target the tensor of its neutral name. Raises ``CheckpointError``."""
    for name, target in targets.items():
        require_tensor(checkpoint, name, tuple(target.shape))
        target.copy_(checkpoint.tensors.read(name))


def require_tensor(checkpoint: Checkpoint, name: str, expected: tuple[int, ...]) -> None:
    """Raise ``CheckpointError`` where a tensor is missing or has another shape; reads no data."""
    if name not in checkpoint.tensors:
        raise CheckpointError(
            f"{checkpoint.folder}: tensor {name} is missing; save the whole model"
        )
    shape = checkpoint.tensors.shape(name)
    if shape != expected:
        raise CheckpointError(
            f"{checkpoint.folder}: tensor {name} has shape {list(shape)}, config.json means "
            f"{list(expected)}; weights and configuration are of different models"
        )
