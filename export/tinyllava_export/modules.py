"""A checkpoint's parts as torch modules in float32, filled one tensor at a time.

Built from transformers' own classes, so this is the model as its makers run it; only the part of
the tower that the features come from is built.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionModel,
    PreTrainedModel,
    SiglipVisionModel,
)
from transformers.activations import ACT2FN

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError

CLOSING_NORM = "post_layernorm"
TOWER_NEST = "vision_model."


class VisionPath(nn.Module):
    """Tower and connector: float32 ``[N, 3, S, S]`` -> ``[N, image_tokens, hidden]``."""

    def __init__(self, tower: nn.Module, connector: nn.Module, dropped_tokens: int) -> None:
        super().__init__()
        self.tower = tower
        self.connector = connector
        self.dropped_tokens = dropped_tokens

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features of the tower's last built layer, without leading tokens, connected."""
        features = self.tower(pixel_values).last_hidden_state[:, self.dropped_tokens :]
        return cast("torch.Tensor", self.connector(features))


def build_language_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The causal language model, in evaluation mode."""
    model = AutoModelForCausalLM.from_config(_config(checkpoint.text_config), dtype=torch.float32)
    names = {f"text.{key}": tensor for key, tensor in model.state_dict().items()}
    if checkpoint.text.tied_embeddings:
        names.pop("text.lm_head.weight", None)
    _fill(names, checkpoint)
    return cast("PreTrainedModel", model.eval())


def build_vision_path(checkpoint: Checkpoint) -> VisionPath:
    """Tower and connector as the checkpoint's semantics use them, in evaluation mode."""
    tower = _build_tower(checkpoint)
    connector = _build_connector(checkpoint)
    names = {
        f"vision.{key.removeprefix(TOWER_NEST)}": tensor
        for key, tensor in tower.state_dict().items()
    }
    names |= {f"connector.{key}": tensor for key, tensor in connector.state_dict().items()}
    _fill(names, checkpoint)
    return VisionPath(tower, connector, checkpoint.semantics.tower.dropped_tokens).eval()


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


def _build_tower(checkpoint: Checkpoint) -> nn.Module:
    """The tower without the layers after the features and without its closing norm.

    Then ``last_hidden_state`` is ``hidden_states[feature_layer]`` in every release of
    transformers, and unused layers cost nothing.
    """
    classes = {"siglip_vision_model": SiglipVisionModel, "clip_vision_model": CLIPVisionModel}
    layers = used_layers(checkpoint.vision.layers, checkpoint.semantics.tower.feature_layer)
    settings = {**checkpoint.vision_config, "num_hidden_layers": layers, "vision_use_head": False}
    tower: nn.Module = classes[checkpoint.vision.family](_config(settings)).float()
    for name in [name for name, _ in tower.named_modules()]:
        parent, _, child = name.rpartition(".")
        if child == CLOSING_NORM:
            tower.get_submodule(parent).add_module(CLOSING_NORM, nn.Identity())
    return tower


def _build_connector(checkpoint: Checkpoint) -> nn.Module:
    """The two-layer MLP, with biases where the checkpoint has them."""
    activation = checkpoint.semantics.connector.activation
    if activation not in ACT2FN:
        raise CheckpointError(
            f"connector activation {activation!r} is not known to transformers; correct "
            f"tinyllava.json"
        )
    hidden, out = checkpoint.vision.hidden, checkpoint.text.hidden
    return nn.Sequential(
        nn.Linear(hidden, out, bias="connector.0.bias" in checkpoint.tensors),
        ACT2FN[activation],
        nn.Linear(out, out, bias="connector.2.bias" in checkpoint.tensors),
    ).float()


def _config(settings: dict[str, Any]) -> Any:

    rest = {key: value for key, value in settings.items() if key != "model_type"}
    return AutoConfig.for_model(settings["model_type"], **rest)


@torch.no_grad()
def _fill(targets: dict[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Copy each target from the tensor of its name; missing or misshapen ones are refused."""
    for name, target in targets.items():
        if name not in checkpoint.tensors:
            raise CheckpointError(
                f"{checkpoint.folder}: tensor {name} is missing; save the whole model"
            )
        shape = checkpoint.tensors.shape(name)
        if shape != tuple(target.shape):
            raise CheckpointError(
                f"{checkpoint.folder}: tensor {name} has shape {list(shape)}, config.json means "
                f"{list(target.shape)}; weights and configuration are of different models"
            )
        target.copy_(checkpoint.tensors.read(name))
