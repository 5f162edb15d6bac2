"""What every checkpoint format becomes: meaning, shapes and tensors under neutral names.

Neutral tensor names are those of transformers' modules, without the nesting that differs from
release to release:

    text.model.* text.lm_head.weight   a causal language model
    vision.*                           a vision tower (embeddings, encoder.layers.N, ...)
    connector.{0,2}.*                  the connector as a sequence of modules
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import Semantics
from tinyllava_export.checkpoints.tensors import Tensors

TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class TextShape:
    """The language model in numbers. ``family`` is transformers' ``model_type``."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context_tokens: int
    rope_theta: float
    norm_eps: float
    tied_embeddings: bool


@dataclass(frozen=True)
class VisionShape:
    """The vision tower in numbers; ``tokens`` counts the class token where there is one."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    tokens: int
    image_size: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, understood.

    ``text_config`` and ``vision_config`` are transformers' settings with every default filled
    in, so that the float32 source can be run. ``sha256`` is over weights and configuration.
    """

    folder: Path
    format: str
    sha256: str
    licence: str
    semantics: Semantics
    text: TextShape
    vision: VisionShape
    text_config: dict[str, Any]
    vision_config: dict[str, Any]
    tensors: Tensors

    @property
    def tokenizer(self) -> Path:
        """The tokenizer file; it may be missing, which its readers report."""
        return self.folder / TOKENIZER_FILE

    @property
    def card(self) -> Path | None:
        """The model card, or None where the checkpoint has none."""
        path = self.folder / CARD_FILE
        return path if path.is_file() else None
