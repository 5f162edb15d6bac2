"""The tokenizer of a checkpoint folder as the content of a ``tokenizer.json``."""

from __future__ import annotations

from pathlib import Path

from tinyllava_export.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"


def read_tokenizer_json(folder: Path) -> bytes:
    """The content of a ``tokenizers`` tokenizer that gives the prompt ids of the original.

    Each piece of text is encoded by itself with ``add_special_tokens=False``. Raises
    ``CheckpointError`` where the folder has no tokenizer.
    """
    try:
        return (folder / TOKENIZER_FILE).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE}: missing; save the tokenizer in the checkpoint's folder"
        ) from None


def sentencepiece_file(folder: Path) -> Path | None:
    """The SentencePiece model, whose scores GGUF wants, or None where there is none."""
    path = folder / SENTENCEPIECE_FILE
    return path if path.is_file() else None
