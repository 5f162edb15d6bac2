"""Neutral names of tensors, and how a format's own names become them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tinyllava_export.errors import CheckpointError

EMBEDDINGS = "text.model.embed_tokens.weight"
HEAD, HEAD_BIAS = "text.lm_head.weight", "text.lm_head.bias"
# Buffers that some releases stored and every release computes.
BUFFERS = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$|attn\.masked_bias$")

Rules = Sequence[tuple[str, str]]
"""Patterns of what a name starts with, and what stands there instead; the first that fits counts.
"""


def rename(key: str, rules: Rules, *, model: str) -> str | None:
    """The neutral name of a tensor on disk, None for a buffer.

    Raises ``CheckpointError`` for one that ``model`` does not have.
    """
    if BUFFERS.search(key):
        return None
    for pattern, replacement in rules:
        if match := re.match(pattern, key):
            return match.expand(replacement) + key[match.end() :]
    raise CheckpointError(f"tensor {key}: not part of a {model} model; was it renamed?")
