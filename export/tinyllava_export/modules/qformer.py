"""Factory's Q-Former: learned queries through BERT blocks that also read the picture features.

BERT-base in size; every other block has cross attention. Of BERT's two feed-forward networks a
block keeps the one for queries. The norm of the queries has no weights of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import layer_norm

from tinyllava_export.modules.resampler import attend


@dataclass(frozen=True)
class QFormerSettings:
    """The numbers of a Q-Former, named as in ``connector_config``; the defaults are BERT-base's."""

    queries: int = 128
    layers: int = 12
    heads: int = 12
    hidden: int = 768
    intermediate: int = 3072
    norm_eps: float = 1e-12
    cross_attention_every: int = 2


def qformer_settings(numbers: Mapping[str, Any]) -> QFormerSettings:
    """The settings that ``connector_config`` names, the rest as in BERT-base."""
    known = {field.name for field in fields(QFormerSettings)}
    return QFormerSettings(**{key: value for key, value in numbers.items() if key in known})


class QFormer(nn.Module):
    """``[N, tokens, width]`` -> ``[N, queries, out]``."""

    def __init__(self, width: int, out: int, settings: QFormerSettings) -> None:
        super().__init__()
        self.eps = settings.norm_eps
        hidden = settings.hidden
        blocks = nn.ModuleList(
            _Block(
                settings,
                width if index % settings.cross_attention_every == 0 else None,
            )
            for index in range(settings.layers)
        )
        self.bert = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": blocks})})
        self.query_tokens = nn.Parameter(torch.zeros(1, settings.queries, hidden))
        self.projector = nn.Linear(hidden, out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Refine the queries block by block, then project them."""
        queries = self.query_tokens.expand(features.shape[0], -1, -1)
        queries = layer_norm(queries, queries.shape[-1:], eps=self.eps)
        for block in self.bert["encoder"]["layer"]:  # type: ignore[index]  # torch types no nesting
            queries = block(queries, features)
        return cast("torch.Tensor", self.projector(queries))


class _Block(nn.Module):
    """Self attention, cross attention where ``width`` is given, feed-forward; norms come last."""

    def __init__(self, settings: QFormerSettings, width: int | None) -> None:
        super().__init__()
        hidden, inner = settings.hidden, settings.intermediate
        self.attention = _Attention(settings, hidden)
        self.crossattention = None if width is None else _Attention(settings, width)
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(hidden, inner)})
        self.output_query = _Closing(inner, settings)
        self.activation = nn.GELU()

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        queries = self.attention(queries, queries)
        if self.crossattention is not None:
            queries = self.crossattention(queries, features)
        inner = self.activation(self.intermediate_query["dense"](queries))
        return cast("torch.Tensor", self.output_query(inner, queries))


class _Attention(nn.Module):
    """From queries to ``context`` of the given width, with BERT's names inside."""

    def __init__(self, settings: QFormerSettings, width: int) -> None:
        super().__init__()
        hidden = settings.hidden
        self.heads = settings.heads
        self.self = nn.ModuleDict(
            {
                "query": nn.Linear(hidden, hidden),
                "key": nn.Linear(width, hidden),
                "value": nn.Linear(width, hidden),
            }
        )
        self.output = _Closing(hidden, settings)

    def forward(self, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        parts = self.self
        read = attend(
            parts["query"](queries), parts["key"](context), parts["value"](context), self.heads
        )
        return cast("torch.Tensor", self.output(read, queries))


class _Closing(nn.Module):
    """A linear layer, the sum with what came before, and its norm."""

    def __init__(self, inner: int, settings: QFormerSettings) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, settings.hidden)
        self.LayerNorm = nn.LayerNorm(settings.hidden, eps=settings.norm_eps)

    def forward(self, inner: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.LayerNorm(self.dense(inner) + before))
