"""Connectors: from a tower's features to embeddings that the language model reads.

Every kind of TinyLLaVA_Factory and of the legacy code. A module's state has the names that follow
``_connector.`` in Factory's checkpoints and ``mm_projector.`` in legacy ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from transformers.activations import ACT2FN

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.modules.qformer import QFormer, qformer_settings
from tinyllava_export.modules.resampler import LegacyResampler, PerceiverResampler
from tinyllava_export.modules.towers import MIXTURE, tower_width

MLP_KIND = re.compile(r"mlp(\d+)x_gelu")
LEGACY_QUERIES = "connector.queries"


def new_connector(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's connector with weights that are yet to be filled, in float32.

    Raises ``CheckpointError`` for a kind that is not known or that does not fit the tower.
    """
    kind = checkpoint.semantics.connector.kind
    if (kind == "mof_mlp") != (checkpoint.vision_config["model_type"] == MIXTURE):
        raise CheckpointError(
            f"connector {kind} with tower {checkpoint.vision_config['model_type']}; a mixture of "
            f"features takes mof_mlp, and mof_mlp takes a mixture of features"
        )
    depth = MLP_KIND.fullmatch(kind)
    if depth is not None:
        return _mlp(checkpoint, int(depth[1]))
    if kind not in BUILDERS:
        known = ", ".join(sorted((*BUILDERS, "mlpNx_gelu")))
        raise CheckpointError(f"connector {kind!r} is not known; known: {known}")
    return BUILDERS[kind](checkpoint)


class InterleavingMlp(nn.Module):
    """An MLP for each tower of a mixture; their tokens alternate, CLIP's first."""

    def __init__(self, clip: nn.Module, dinov2: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.dinov2 = dinov2

    def forward(self, features: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Two of ``[N, tokens, hidden]`` -> ``[N, 2 * tokens, out]``."""
        pairs = torch.stack((self.clip(features[0]), self.dinov2(features[1])), dim=2)
        return pairs.flatten(1, 2)


def _linear(checkpoint: Checkpoint) -> nn.Module:
    return _layer(checkpoint, "connector", tower_width(checkpoint))


def _identity(checkpoint: Checkpoint) -> nn.Module:
    width, out = tower_width(checkpoint), checkpoint.text.hidden
    if width != out:
        raise CheckpointError(
            f"connector identity from a tower of width {width} to a language model of width "
            f"{out}; these do not fit, is it another connector?"
        )
    return nn.Identity()


def _mlp(checkpoint: Checkpoint, depth: int, name: str = "connector") -> nn.Module:
    """``depth`` linear layers with activations between them, with biases where they are stored."""
    layers: list[nn.Module] = [_layer(checkpoint, f"{name}.0", tower_width(checkpoint))]
    for index in range(1, depth):
        layers.append(_activation(checkpoint))
        layers.append(_layer(checkpoint, f"{name}.{2 * index}", checkpoint.text.hidden))
    return nn.Sequential(*layers)


def _mof_mlp(checkpoint: Checkpoint) -> nn.Module:
    return InterleavingMlp(
        _mlp(checkpoint, 2, "connector.clip"), _mlp(checkpoint, 2, "connector.dinov2")
    )


def _resampler(checkpoint: Checkpoint) -> nn.Module:
    """Factory's or the legacy one: different networks under one name, told by their queries."""
    width, out = tower_width(checkpoint), checkpoint.text.hidden
    numbers = checkpoint.connector_config
    if LEGACY_QUERIES in checkpoint.tensors:
        stored = checkpoint.tensors.shape(LEGACY_QUERIES)
        queries, hidden = stored[0], stored[-1]
        return LegacyResampler(width, hidden, out, queries=queries, layers=numbers["layers"])
    return PerceiverResampler(width, out, queries=numbers["queries"], layers=numbers["layers"])


def _qformer(checkpoint: Checkpoint) -> nn.Module:
    settings = qformer_settings(checkpoint.connector_config)
    return QFormer(tower_width(checkpoint), checkpoint.text.hidden, settings)


def _layer(checkpoint: Checkpoint, name: str, width: int) -> nn.Linear:
    return nn.Linear(width, checkpoint.text.hidden, bias=f"{name}.bias" in checkpoint.tensors)


def _activation(checkpoint: Checkpoint) -> nn.Module:
    activation = checkpoint.semantics.connector.activation
    if activation not in ACT2FN:
        raise CheckpointError(
            f"connector activation {activation!r} is not known to transformers; correct "
            f"tinyllava.json"
        )
    return cast("nn.Module", ACT2FN[activation])


BUILDERS: dict[str, Callable[[Checkpoint], nn.Module]] = {
    "identity": _identity,
    "linear": _linear,
    "mof_mlp": _mof_mlp,
    "qformer": _qformer,
    "resampler": _resampler,
}
