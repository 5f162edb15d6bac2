"""What every checkpoint format becomes: meaning, shapes and tensors under neutral names.

Neutral tensor names are those of transformers' modules, without the nesting that differs from
release to release:

    text.model.* text.lm_head.weight   a causal language model
    vision.*                           a vision tower (embeddings, encoder.layers.N, ...)
    vision.clip.* vision.dinov2.*      the two towers of a mixture of features ("mof")
    connector.{0,2}.*                  an MLP connector as a sequence of modules
    connector.*                        any other, by the names that TinyLLaVA_Factory gives
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import Semantics
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.checkpoints.tokenizer import read_tokenizer_json, sentencepiece_file

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
    in, so that the float32 source can be run; the vision settings of a mixture of features are
    ``{"model_type": "mof", "clip": {...}, "dinov2": {...}}``. ``connector_config`` has the
    connector's ``kind``, the same word as in ``semantics``, and its numbers. ``sha256`` is over
    weights and configuration.
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
    connector_config: dict[str, Any]
    tensors: Tensors

    def tokenizer_json(self) -> bytes:
        """The content of a ``tokenizers`` tokenizer that gives the prompt ids of the original.

        Each piece of text is encoded by itself, with ``add_special_tokens=False``. Raises
        ``CheckpointError`` where there is no tokenizer.
        """
        return read_tokenizer_json(self.folder)

    @property
    def sentencepiece(self) -> Path | None:
        """The SentencePiece model, whose scores GGUF wants, or None where there is none."""
        return sentencepiece_file(self.folder)

    @property
    def card(self) -> Path | None:
        """The model card, or None where the checkpoint has none."""
        path = self.folder / CARD_FILE
        return path if path.is_file() else None
