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
    model = _new_language_model(checkpoint)
    _fill(_language_targets(model, checkpoint), checkpoint)
    return cast("PreTrainedModel", model.eval())


def build_vision_path(checkpoint: Checkpoint) -> VisionPath:
    """Tower and connector as the checkpoint's semantics use them, in evaluation mode."""
    path = _new_vision_path(checkpoint)
    _fill(_vision_targets(path), checkpoint)
    return path.eval()


def require_tensors(checkpoint: Checkpoint) -> None:
    """Raise ``CheckpointError`` where a tensor is missing or has another shape than it should.

    Compares with modules built without memory, so it costs little at any size.
    """
    with torch.device("meta"):
        targets = _language_targets(_new_language_model(checkpoint), checkpoint)
    for name, target in targets.items():
        _require_tensor(checkpoint, name, tuple(target.shape))
    for name, shape in expected_vision_tensors(checkpoint).items():
        _require_tensor(checkpoint, name, shape)


def expected_vision_tensors(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors that picture features pass through, by neutral name."""
    with torch.device("meta"):
        path = _new_vision_path(checkpoint)
    return {name: tuple(target.shape) for name, target in _vision_targets(path).items()}


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


def _new_language_model(checkpoint: Checkpoint) -> Any:
    return AutoModelForCausalLM.from_config(_config(checkpoint.text_config), dtype=torch.float32)


def _new_vision_path(checkpoint: Checkpoint) -> VisionPath:
    dropped_tokens = checkpoint.semantics.tower.dropped_tokens
    return VisionPath(_new_tower(checkpoint), _new_connector(checkpoint), dropped_tokens)


def _language_targets(model: nn.Module, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The model's own tensors by neutral name; a tied head is the embedding table already."""
    targets = {f"text.{key}": tensor for key, tensor in model.state_dict().items()}
    if checkpoint.text.tied_embeddings:
        targets.pop("text.lm_head.weight", None)
    return targets


def _vision_targets(path: VisionPath) -> dict[str, torch.Tensor]:
    """Tower and connector by neutral name, whichever way this transformers nests the tower."""
    tower = path.tower.state_dict().items()
    targets = {f"vision.{key.removeprefix(TOWER_NEST)}": tensor for key, tensor in tower}
    connector = path.connector.state_dict().items()
    return targets | {f"connector.{key}": tensor for key, tensor in connector}


def _new_tower(checkpoint: Checkpoint) -> nn.Module:
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


def _new_connector(checkpoint: Checkpoint) -> nn.Module:
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
    """Copy each target from the tensor of its name, one at a time."""
    for name, target in targets.items():
        _require_tensor(checkpoint, name, tuple(target.shape))
        target.copy_(checkpoint.tensors.read(name))


def _require_tensor(checkpoint: Checkpoint, name: str, expected: tuple[int, ...]) -> None:
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
