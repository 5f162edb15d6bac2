"""Byte-level BPE tokenizers (GPT-2, CodeGen, Qwen2) from ``vocab.json`` and ``merges.txt``."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tinyllava_export.checkpoints.added_tokens import (
    CONFIG_FILE,
    add_tokens,
    read_added_tokens,
)
from tinyllava_export.checkpoints.json_file import read_json_object, read_optional_json
from tinyllava_export.errors import CheckpointError

VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
# Tokenizers that split like GPT-2, and those that split like Qwen2 after composing Unicode.
GPT2_CLASSES = ("GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer")
QWEN2_CLASSES = ("Qwen2Tokenizer",)
# Qwen2's splitting: contractions, words, single digits, punctuation, line ends, spaces.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def has_byte_level_bpe(folder: Path) -> bool:
    """Whether the folder holds such a tokenizer."""
    return (folder / VOCABULARY_FILE).is_file() and (folder / MERGES_FILE).is_file()


def byte_level_bpe(folder: Path) -> Tokenizer:
    """The tokenizer with the splitting of its class.

    Raises ``CheckpointError`` for a class whose splitting is not known, or damaged files.
    """
    settings = read_optional_json(folder / CONFIG_FILE)
    kind = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    tokenizer = Tokenizer(models.BPE(_vocabulary(folder), _merges(folder), fuse_unk=False))
    if kind in QWEN2_CLASSES:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = split_then_bytes(QWEN2_PATTERN)
    elif kind in GPT2_CLASSES:
        prefix = bool(settings.get("add_prefix_space", False))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    else:
        known = ", ".join((*GPT2_CLASSES, *QWEN2_CLASSES))
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: tokenizer_class {kind!r} splits text in a way that is not "
            f"known; known: {known}; or save a tokenizer.json beside it"
        )
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, read_added_tokens(folder), folder=folder)
    return tokenizer


def split_then_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Split by ``pattern``, then write the pieces in the byte alphabet."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def byte_symbols() -> tuple[str, ...]:
    """The 256 characters that stand for bytes in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update((byte, chr(256 + n)) for n, byte in enumerate(others))
    return tuple(symbols[byte] for byte in range(256))


def _vocabulary(folder: Path) -> dict[str, int]:
    path = folder / VOCABULARY_FILE
    vocabulary = read_json_object(path)
    if sorted(vocabulary.values(), key=str) != sorted(range(len(vocabulary)), key=str):
        raise CheckpointError(f"{path}: its ids are not 0 to {len(vocabulary) - 1}; copy it again")
    return vocabulary


def _merges(folder: Path) -> list[tuple[str, str]]:
    path = folder / MERGES_FILE
    vocabulary = read_json_object(folder / VOCABULARY_FILE)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 ({error}); copy it again") from None
    merges = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2 or any(part not in vocabulary for part in (*parts, "".join(parts))):
            raise CheckpointError(
                f"{path}: line {number} ({line!r:.60}) is no merge of tokens; copy it again"
            )
        merges.append((parts[0], parts[1]))
    return merges
