"""What a model asks of memory, as three numbers, and the arithmetic that gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class Footprint:
    """Memory that a bundle needs, in binary units.

    ``weights_mib`` is all weights as stored (language model and vision), ``kv_kib_per_token``
    what one token of context adds to the KV cache, ``vision_activation_mib`` the peak of
    temporary tensors while one picture is encoded. Raises ``ValueError`` for a number that is
    negative or not finite.
    """

    weights_mib: float
    kv_kib_per_token: float
    vision_activation_mib: float

    def __post_init__(self) -> None:
        for name in ("weights_mib", "kv_kib_per_token", "vision_activation_mib"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; give a finite number of at least 0")

    def kv_mib(self, context_tokens: int) -> float:
        """The KV cache of a context of ``context_tokens``, in MiB."""
        return self.kv_kib_per_token * context_tokens / KIB


def kv_kib_per_token(
    *, layers: int, kv_heads: int, head_dim: int, bytes_per_element: float = 2.0
) -> float:
    """One token's keys and values over all layers, in KiB.

    ``kv_heads`` counts the heads that store keys (fewer than query heads under grouped-query
    attention); ``bytes_per_element`` is 2 for a float16 cache, 34/32 for llama.cpp's q8_0.
    """
    return 2 * layers * kv_heads * head_dim * bytes_per_element / KIB


def vision_activation_mib(
    *,
    tokens: int,
    hidden: int,
    intermediate: int,
    heads: int,
    bytes_per_element: float = 4.0,
) -> float:
    """The peak of temporary tensors in one transformer layer over one picture, in MiB.

    Counts the residual stream with either attention (queries, keys, values, scores before and
    after the softmax) or the MLP (before and after its activation), whichever is larger. Layers
    run one after another, so their number does not matter. An upper estimate: a fused attention
    kernel needs no score matrix.
    """
    residual = tokens * hidden
    attention = 3 * tokens * hidden + 2 * heads * tokens * tokens
    mlp = 2 * tokens * intermediate
    return (residual + max(attention, mlp)) * bytes_per_element / MIB
