"""A byte-level BPE ``tokenizer.json`` in the form that GGUF wants.

llama.cpp has its own tokenizer; it gives the same ids only for what is checked here. Anything
else is refused, because a tokenizer that is nearly right gives answers that are quietly wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllava_export.errors import CheckpointError

# From gguf.TokenType, which is llama.cpp's llama_token_type.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# The splitting pattern in tokenizer.json, and llama.cpp's name of the same pattern.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {QWEN2_PATTERN: "qwen2"}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, their types and merges, and the ids with a meaning."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    pad_id: int | None
    unk_id: int | None


def read_vocabulary(path: Path, size: int) -> Vocabulary:
    """Read ``tokenizer.json`` and pad it to the ``size`` of the embedding table.

    Raises ``CheckpointError`` where llama.cpp would not give the same ids.
    """
    text = _read_json(path)
    try:
        return _vocabulary(path, text, size)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a byte-level BPE tokenizer ({error!r}); only those can be exported"
        ) from None


def _vocabulary(path: Path, text: dict[str, Any], size: int) -> Vocabulary:
    pre = _pre_tokenizer(path, text)
    tokens = {int(i): token for token, i in text["model"]["vocab"].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for added in text.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(tokens) >= size:
        raise CheckpointError(
            f"{path}: token id {max(tokens)} is beyond the embedding table of {size}; the "
            f"tokenizer is of another model"
        )
    specials = _named_tokens(path.parent / "tokenizer_config.json")
    ids = {token: i for i, token in tokens.items()}
    return Vocabulary(
        tokens=tuple(tokens.get(i, f"[PAD{i}]") for i in range(size)),
        types=tuple(types.get(i, UNUSED) for i in range(size)),
        merges=tuple(_merge(merge) for merge in text["model"]["merges"]),
        pre=pre,
        pad_id=ids.get(specials.get("pad_token", "")),
        unk_id=ids.get(specials.get("unk_token", "")),
    )


def _pre_tokenizer(path: Path, text: dict[str, Any]) -> str:
    """llama.cpp's name of the splitting pattern, after everything else has been checked."""
    model = text["model"]
    if model.get("type") != "BPE":
        raise CheckpointError(f"{path}: model {model.get('type')!r}; only byte-level BPE works")
    for field in ("byte_fallback", "ignore_merges", "dropout", "end_of_word_suffix"):
        if model.get(field):
            raise CheckpointError(f"{path}: {field} is set, which llama.cpp does not follow here")
    if text.get("normalizer") is not None:
        raise CheckpointError(
            f"{path}: normalizer {text['normalizer'].get('type')!r} is set, llama.cpp has none; "
            f"train the tokenizer without one"
        )
    missing = [symbol for symbol in byte_symbols() if symbol not in model["vocab"]]
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of the 256 byte symbols are no tokens (first: "
            f"{missing[0]!r}); train it with the ByteLevel alphabet"
        )
    steps = text["pre_tokenizer"].get("pretokenizers", [text["pre_tokenizer"]])
    pattern = next((s["pattern"]["Regex"] for s in steps if s["type"] == "Split"), None)
    level = next((s for s in steps if s["type"] == "ByteLevel"), None)
    if pattern not in PRE_TOKENIZERS or level is None or len(steps) != 2:
        raise CheckpointError(
            f"{path}: its splitting pattern is none that llama.cpp has under a known name "
            f"({', '.join(PRE_TOKENIZERS.values())}); train the tokenizer with one of those"
        )
    if level.get("use_regex", True) or level.get("add_prefix_space", True):
        raise CheckpointError(
            f"{path}: ByteLevel splits or adds spaces by itself; set use_regex and "
            f"add_prefix_space to false"
        )
    return PRE_TOKENIZERS[pattern]


def byte_symbols() -> tuple[str, ...]:
    """The 256 characters that stand for bytes in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update((byte, chr(256 + n)) for n, byte in enumerate(others))
    return tuple(symbols[byte] for byte in range(256))


def _merge(merge: str | list[str]) -> str:
    """Older files write a merge as ``"a b"``, newer ones as ``["a", "b"]``."""
    return merge if isinstance(merge, str) else " ".join(merge)


def _named_tokens(path: Path) -> dict[str, str]:
    """``{"pad_token": "<pad>", ...}`` of ``tokenizer_config.json``; empty where there is none."""
    if not path.is_file():
        return {}
    named = {}
    for name, value in _read_json(path).items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            named[name] = content
    return named


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing; save the tokenizer in the checkpoint's folder"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); save it again") from None
    if not isinstance(text, dict):
        raise CheckpointError(f"{path}: not a JSON object; save it again")
    return text
