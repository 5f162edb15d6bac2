"""Vision tower and connector as one module: what ``vision.onnx`` computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.modules.connectors import new_connector
from tinyllava_export.modules.positions import POSITIONS, fit_positions
from tinyllava_export.modules.towers import MIXTURE, new_tower
from tinyllava_export.modules.weights import require_tensor

# How releases of transformers, and the towers of this package, nest the same module.
NESTS = ("model", "vision_model")
POSITION_IDS = "position_ids"


class VisionPath(nn.Module):
    """Tower and connector: float32 ``[N, 3, S, S]`` -> float32 ``[N, image_tokens, hidden]``."""

    def __init__(self, tower: nn.Module, connector: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.connector = connector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the language model receives for each picture."""
        return cast("torch.Tensor", self.connector(self.tower(pixel_values)).float())


def build_vision_path(checkpoint: Checkpoint) -> VisionPath:
    """Tower and connector as the checkpoint's semantics use them, in evaluation mode.

    Raises ``CheckpointError`` where a tensor is missing or has another shape than it should.
    """
    path = reserved_vision_path(checkpoint)
    state = path.state_dict()
    with torch.no_grad():
        for key, name in neutral_names(path):
            state[key].copy_(read_vision_tensor(checkpoint, name, state[key].shape))
    return path


def reserved_vision_path(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> VisionPath:
    """The module in evaluation mode, with memory for its weights set aside and not yet written.

    Where the system hands out memory as it is first written, this takes none at any size.
    """
    path = _bare_vision_path(checkpoint).to(dtype).to_empty(device="cpu")
    for name, buffer in path.named_buffers():
        if not name.endswith(POSITION_IDS):
            raise CheckpointError(
                f"{name}: a number of the tower that is in no checkpoint; this release of "
                f"transformers is not known"
            )
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return path.eval()


def neutral_names(path: VisionPath) -> Iterator[tuple[str, str]]:
    """Pairs of a tensor's name in the module and its neutral name."""
    for key in path.state_dict():
        part, _, rest = key.partition(".")
        if part == "connector":
            yield key, key
        else:
            pieces = [piece for piece in rest.split(".") if piece not in NESTS]
            yield key, ".".join(("vision", *pieces))


def expected_vision_tensors(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The stored shapes of all tensors that picture features pass through, by neutral name."""
    path = _bare_vision_path(checkpoint)
    state = path.state_dict()
    return {
        name: _stored_shape(checkpoint, name, state[key].shape) for key, name in neutral_names(path)
    }


def read_vision_tensor(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor as the module of that ``shape`` holds it, in its stored type."""
    require_tensor(checkpoint, name, _stored_shape(checkpoint, name, shape))
    tensor = checkpoint.tensors.read(name)
    return fit_positions(tensor, shape[1]) if name.endswith(POSITIONS) else tensor


def _bare_vision_path(checkpoint: Checkpoint) -> VisionPath:
    """Shapes without memory."""
    with torch.device("meta"):
        return VisionPath(new_tower(checkpoint), new_connector(checkpoint))


def _stored_shape(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """As the module's, but for a position table, which is stored for the trained image size."""
    if not name.endswith(POSITIONS):
        return tuple(shape)
    settings = checkpoint.vision_config
    trained = settings["dinov2"] if settings["model_type"] == MIXTURE else settings
    side = trained["image_size"] // trained["patch_size"]
    return (shape[0], 1 + side * side, *shape[2:])
