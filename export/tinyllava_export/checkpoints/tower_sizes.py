"""Sizes of a vision tower read off the shapes of its tensors, where no configuration holds them."""

from __future__ import annotations

import math
import re
from typing import Any

from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.checkpoints.towers import CLIP, DINOV2, KnownTower
from tinyllava_export.errors import CheckpointError

PATCHES = "embeddings.patch_embedding.weight"
POSITIONS = "embeddings.position_embedding.weight"
# Heads of the published sizes, all of which have 64 dimensions a head.
DINOV2_HEADS = {"small": 6, "base": 12, "large": 16, "giant": 24}
DINOV2_HEAD_DIM = 64


def tower_config(tensors: Tensors, prefix: str, tower: KnownTower) -> dict[str, Any]:
    """Settings of a SigLIP or CLIP tower: sizes from tensors, the rest from the known tower.

    Raises ``CheckpointError`` where tensors are missing or do not fit the tower's picture size.
    """
    hidden, _, patch, _ = stored_shape(tensors, prefix + PATCHES, 4)
    positions, _ = stored_shape(tensors, prefix + POSITIONS, 2)
    expected = (tower.image_size // patch) ** 2 + (1 if tower.family == CLIP else 0)
    if positions != expected:
        raise CheckpointError(
            f"tensor {prefix}{POSITIONS} has {positions} positions, pictures of "
            f"{tower.image_size} need {expected}; mm_vision_tower names another tower"
        )
    intermediate, _ = stored_shape(tensors, f"{prefix}encoder.layers.0.mlp.fc1.weight", 2)
    return {
        "model_type": tower.family,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layer_count(tensors, f"{prefix}encoder.layers."),
        "num_attention_heads": tower.heads,
        "image_size": tower.image_size,
        "patch_size": patch,
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.norm_eps,
    }


def dinov2_config(tensors: Tensors, prefix: str, tower_name: str) -> dict[str, Any]:
    """Settings of a DINOv2 tower, its heads by the size in its name (``facebook/dinov2-large``).

    Raises ``CheckpointError`` where tensors are missing.
    """
    name = f"{prefix}embeddings.patch_embeddings.projection.weight"
    hidden, _, patch, _ = stored_shape(tensors, name, 4)
    _, positions, _ = stored_shape(tensors, f"{prefix}embeddings.position_embeddings", 3)
    settings = {
        "model_type": DINOV2,
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(tensors, f"{prefix}encoder.layer."),
        "num_attention_heads": _dinov2_heads(tower_name, hidden),
        "image_size": patch * math.isqrt(max(positions - 1, 0)),
        "patch_size": patch,
    }
    layer = f"{prefix}encoder.layer.0.mlp."
    if f"{layer}weights_in.weight" in tensors:
        return {**settings, "use_swiglu_ffn": True}
    intermediate, _ = stored_shape(tensors, f"{layer}fc1.weight", 2)
    return {**settings, "mlp_ratio": intermediate / hidden}


def _dinov2_heads(tower_name: str, hidden: int) -> int:
    words = re.split(r"[-_/]", tower_name.lower())
    heads = next((DINOV2_HEADS[word] for word in words if word in DINOV2_HEADS), 0)
    return heads if heads and hidden % heads == 0 else max(1, hidden // DINOV2_HEAD_DIM)


def layer_count(tensors: Tensors, prefix: str) -> int:
    """How many layers are numbered after ``prefix``; ``CheckpointError`` for none."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    numbers = {int(m[1]) for name in tensors.names(prefix) if (m := pattern.match(name))}
    if not numbers:
        raise CheckpointError(f"no tensors {prefix}*; save the whole model")
    return max(numbers) + 1


def stored_shape(tensors: Tensors, name: str, dimensions: int) -> tuple[int, ...]:
    """A tensor's shape; ``CheckpointError`` where it is missing or has other dimensions."""
    if name not in tensors:
        raise CheckpointError(
            f"tensor {name} is missing; save the whole model, vision tower included"
        )
    shape = tensors.shape(name)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(
            f"tensor {name} has shape {list(shape)}, {dimensions} dimensions are expected"
        )
    return shape
