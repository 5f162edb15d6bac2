"""Byte-level BPE: GPT-2's alphabet of 256 symbols, merged within words that a pattern splits off.

llama.cpp knows patterns by name only, and its own converter tells the name from the ids of one
test sentence, which works for vocabularies it has seen. Here the pattern itself is compared.
"""

from __future__ import annotations

from typing import Any

from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.token_types import TextForm

MODEL = "gpt2"
# GPT-2's own pattern (Phi-2 has it too), which a ByteLevel step applies by itself.
GPT2 = "gpt-2"
# Qwen2's, and StableLM-2's, which llama.cpp also knows as "stablelm2".
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {QWEN2_PATTERN: "qwen2"}
# Both cut a text that the pattern covers into its matches: (behaviour, inverted).
CUTS = (("Isolated", False), ("Removed", True))


def read_form(text: dict[str, Any], where: str) -> TextForm:
    """How text is treated, after everything that llama.cpp would do otherwise is refused."""
    unicode_form = _unicode_form(text, where)
    vocabulary = text["model"]["vocab"]
    missing = [symbol for symbol in byte_symbols() if symbol not in vocabulary]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of the 256 byte symbols are no tokens (first: "
            f"{missing[0]!r}); train it with the ByteLevel alphabet"
        )
    pre = _pre_tokenizer(text, where)
    return TextForm(MODEL, pre, space_prefix=False, unicode_form=unicode_form)


def byte_symbols() -> tuple[str, ...]:
    """The 256 characters that stand for bytes in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update((byte, chr(256 + n)) for n, byte in enumerate(others))
    return tuple(symbols[byte] for byte in range(256))


def _unicode_form(text: dict[str, Any], where: str) -> str:
    normalizer = text.get("normalizer")
    if normalizer is None:
        return "as_is"
    if normalizer.get("type") == "NFC":
        return "NFC"
    raise CheckpointError(
        f"{where}: normalizer {normalizer.get('type')!r} is set, llama.cpp has none; train the "
        f"tokenizer without one"
    )


def _pre_tokenizer(text: dict[str, Any], where: str) -> str:
    """llama.cpp's name of the splitting pattern."""
    steps = text["pre_tokenizer"].get("pretokenizers", [text["pre_tokenizer"]])
    level = next((step for step in steps if step["type"] == "ByteLevel"), None)
    if level is not None and level.get("add_prefix_space", True):
        raise CheckpointError(
            f"{where}: ByteLevel adds spaces by itself; set add_prefix_space to false"
        )
    if level is not None and len(steps) == 1 and level.get("use_regex", True):
        return GPT2
    pattern = next((s["pattern"]["Regex"] for s in steps if _cuts(s)), None)
    if level is None or len(steps) != 2 or pattern not in PRE_TOKENIZERS:
        raise CheckpointError(
            f"{where}: its splitting pattern is none that llama.cpp has under a known name "
            f"({', '.join([GPT2, *PRE_TOKENIZERS.values()])}); train the tokenizer with one of "
            f"those"
        )
    if level.get("use_regex", True):
        raise CheckpointError(f"{where}: ByteLevel splits by itself too; set use_regex to false")
    return PRE_TOKENIZERS[pattern]


def _cuts(step: dict[str, Any]) -> bool:
    return step["type"] == "Split" and (step["behavior"], step["invert"]) in CUTS
