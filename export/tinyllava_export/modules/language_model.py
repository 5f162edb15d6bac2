"""The causal language model of a checkpoint, from transformers' own classes."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.names import HEAD
from tinyllava_export.modules.weights import fill


def build_language_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The language model in float32 and in evaluation mode.

    Raises ``CheckpointError`` where a tensor is missing or has another shape than it should.
    """
    model = _new_language_model(checkpoint)
    fill(_targets(model, checkpoint), checkpoint)
    return cast("PreTrainedModel", model.eval())


def expected_text_tensors(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of the language model, by neutral name; takes no memory."""
    with torch.device("meta"):
        targets = _targets(_new_language_model(checkpoint), checkpoint)
    return {name: tuple(target.shape) for name, target in targets.items()}


def _new_language_model(checkpoint: Checkpoint) -> Any:
    settings = checkpoint.text_config
    rest = {key: value for key, value in settings.items() if key != "model_type"}
    config = AutoConfig.for_model(settings["model_type"], **rest)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _targets(model: nn.Module, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The model's own tensors by neutral name; a tied head is the embedding table already."""
    targets = {f"text.{key}": tensor for key, tensor in model.state_dict().items()}
    if checkpoint.text.tied_embeddings:
        targets.pop(HEAD, None)
    return targets
