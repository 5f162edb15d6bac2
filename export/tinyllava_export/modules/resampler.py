"""Resamplers: a few learned queries that read all picture features by cross attention.

TinyLLaVA_Factory and the legacy code both have one under this name, and the two differ: Factory's
projects the features first and lets the queries attend to themselves as well; the legacy one works
at a width of its own and projects last.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

FACTORY_HEADS, FACTORY_HEAD_WIDTH = 8, 64
FEED_FORWARD_FACTOR = 4


class PerceiverResampler(nn.Module):
    """Factory's: ``[N, tokens, width]`` -> ``[N, queries, out]``, at width ``out`` throughout."""

    def __init__(self, width: int, out: int, *, queries: int, layers: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(queries, out))
        self.linear = nn.Linear(width, out)
        self.layers = nn.ModuleList(
            nn.ModuleList((_PerceiverAttention(out), _feed_forward(out))) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Refine the queries layer by layer."""
        features = self.linear(features)
        latents = self.latents.expand(features.shape[0], -1, -1)
        for layer in self.layers:
            attention, feed_forward = cast("nn.ModuleList", layer)
            latents = attention(features, latents) + latents
            latents = feed_forward(latents) + latents
        return cast("torch.Tensor", self.norm(latents))


class LegacyResampler(nn.Module):
    """The legacy one: ``[N, tokens, width]`` -> ``[N, queries, out]``, at width ``hidden``."""

    def __init__(self, width: int, hidden: int, out: int, *, queries: int, layers: int) -> None:
        super().__init__()
        self.resampler_blocks = nn.ModuleList(_LegacyBlock(width, hidden) for _ in range(layers))
        self.queries = nn.Parameter(torch.zeros(queries, hidden))
        self.post_norm = nn.LayerNorm(hidden)
        self.final_proj = nn.Linear(hidden, out, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Refine the queries block by block, then project them."""
        queries = self.queries.expand(features.shape[0], -1, -1)
        for block in self.resampler_blocks:
            queries = block(queries, features)
        return cast("torch.Tensor", self.final_proj(self.post_norm(queries)))


class _PerceiverAttention(nn.Module):
    """Queries attend to the features and to each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = FACTORY_HEADS * FACTORY_HEAD_WIDTH
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, features: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        latents = self.norm_latents(latents)
        context = torch.cat((self.norm_media(features), latents), dim=1)
        keys, values = self.to_kv(context).chunk(2, dim=-1)
        read = attend(self.to_q(latents), keys, values, FACTORY_HEADS)
        return cast("torch.Tensor", self.to_out(read))


class _LegacyBlock(nn.Module):
    """Queries attend to the features alone; 12 heads, or 8 where the width is 512."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.heads = 8 if hidden == 512 else 12
        self.to_q = nn.Linear(hidden, hidden, bias=False)
        self.to_k = nn.Linear(width, hidden, bias=False)
        self.to_v = nn.Linear(width, hidden, bias=False)
        self.to_out = nn.Linear(hidden, hidden, bias=False)
        self.feed_forward = _feed_forward(hidden)
        self.norm_image = nn.LayerNorm(width)
        self.norm_hidden = nn.LayerNorm(hidden)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        features = self.norm_image(features)
        keys, values = self.to_k(features), self.to_v(features)
        read = attend(self.to_q(self.norm_hidden(queries)), keys, values, self.heads)
        queries = queries + self.to_out(read)
        return cast("torch.Tensor", queries + self.feed_forward(queries))


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: int
) -> torch.Tensor:
    """Multi-head attention without a mask, ``[N, tokens, heads * head_width]`` in and out."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries, keys, values))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _feed_forward(width: int) -> nn.Module:
    inner = FEED_FORWARD_FACTOR * width
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, inner, bias=False),
        nn.GELU(),
        nn.Linear(inner, width, bias=False),
    )
