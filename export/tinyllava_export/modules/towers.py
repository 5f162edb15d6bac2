"""Vision towers: CLIP, SigLIP, DINOv2, and the mixture of features of CLIP and DINOv2.

Built from transformers' own classes, without the layers after the features and without the
closing norm: then a tower's output is ``hidden_states[feature_layer]`` in every release of
transformers, and unused layers cost nothing.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionModel, Dinov2Model, SiglipVisionModel

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError

MIXTURE = "mof"
CLASSES = {
    "clip_vision_model": CLIPVisionModel,
    "dinov2": Dinov2Model,
    "siglip_vision_model": SiglipVisionModel,
}
CLOSING_NORMS = ("post_layernorm", "layernorm")
# What only other uses of a tower read, and what would contradict a smaller number of layers.
FOREIGN_SETTINGS = ("model_type", "out_features", "out_indices", "stage_names")


class Tower(nn.Module):
    """One tower: pixels ``[N, 3, S, S]`` -> features ``[N, tokens, hidden]``."""

    def __init__(self, model: nn.Module, dropped_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.dropped_tokens = dropped_tokens

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features of the last built layer, without the dropped leading tokens."""
        features = self.model(pixel_values).last_hidden_state[:, self.dropped_tokens :]
        return cast("torch.Tensor", features)


class MixtureOfFeatures(nn.Module):
    """Two towers on the same pixels; their features stay apart until the connector."""

    def __init__(self, clip: Tower, dinov2: Tower) -> None:
        super().__init__()
        self.clip = clip
        self.dinov2 = dinov2

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of CLIP and of DINOv2, each ``[N, tokens, hidden]``."""
        return self.clip(pixel_values), self.dinov2(pixel_values)


def new_tower(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's tower with weights that are yet to be filled.

    Raises ``CheckpointError`` for a feature layer that the tower does not have.
    """
    settings = checkpoint.vision_config
    if settings["model_type"] == MIXTURE:
        return MixtureOfFeatures(
            _new_tower(settings["clip"], checkpoint), _new_tower(settings["dinov2"], checkpoint)
        )
    return _new_tower(settings, checkpoint)


def tower_width(checkpoint: Checkpoint) -> int:
    """Numbers in a token's features, of either tower of a mixture."""
    settings = checkpoint.vision_config
    width: int = settings.get("clip", settings)["hidden_size"]
    return width


def used_layers(layers: int, feature_layer: int) -> int:
    """How many of a tower's layers its features pass through.

    ``feature_layer`` indexes ``hidden_states``, which holds the embeddings first: -1 and
    ``layers`` both mean all of them.
    """
    used = feature_layer if feature_layer >= 0 else layers + 1 + feature_layer
    if not 0 < used <= layers:
        raise CheckpointError(
            f"feature_layer {feature_layer} of a tower with {layers} layers; give one from "
            f"-{layers} to -1"
        )
    return used


def _new_tower(settings: dict[str, Any], checkpoint: Checkpoint) -> Tower:
    semantics = checkpoint.semantics
    family = settings["model_type"]
    layers = used_layers(settings["num_hidden_layers"], semantics.tower.feature_layer)
    own = {key: value for key, value in settings.items() if key not in FOREIGN_SETTINGS}
    own |= {"num_hidden_layers": layers, "image_size": semantics.image.size}
    # Neither SigLIP's pooling head nor DINOv2's mask token reaches the features.
    own |= {"vision_use_head": False, "use_mask_token": False}
    model: nn.Module = CLASSES[family](AutoConfig.for_model(family, **own)).float()
    for name in [name for name, _ in model.named_modules()]:
        parent, _, child = name.rpartition(".")
        if child in CLOSING_NORMS:
            model.get_submodule(parent).add_module(child, nn.Identity())
    return Tower(model, semantics.tower.dropped_tokens)
