"""SentencePiece's BPE: letters, with spaces written as ``▁``, merged across the whole text.

Letters that are no tokens fall back to bytes. llama.cpp merges by score where ``tokenizer.json``
has a list of merges; a token's score here is the rank of its first merge, which puts tokens in
the same order as the scores of the SentencePiece model that the list was made from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.token_types import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, TextForm

MODEL = "llama"
PRE = "default"
SPACE = "▁"
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# Below every rank: a token that no merge makes is not preferred to one that a merge makes.
UNMERGED = -1e9

REPLACE_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND_SPACE = {"type": "Prepend", "prepend": SPACE}


def read_form(text: dict[str, Any], where: str) -> TextForm:
    """How text is treated, after everything that llama.cpp would do otherwise is refused."""
    vocabulary = text["model"]["vocab"]
    missing = [f"<0x{byte:02X}>" for byte in range(256) if f"<0x{byte:02X}>" not in vocabulary]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of the 256 byte tokens are missing (first: {missing[0]}); "
            f"llama.cpp needs them all"
        )
    steps = _normalizers(text)
    if steps not in ([REPLACE_SPACE], [PREPEND_SPACE, REPLACE_SPACE]):
        kinds = ", ".join(str(step.get("type")) for step in steps) or "none"
        raise CheckpointError(
            f"{where}: normalizers {kinds}; llama.cpp only replaces spaces, and may put one "
            f"before the text (as legacy Llama tokenizers do)"
        )
    if not _splits_nothing(text.get("pre_tokenizer")):
        raise CheckpointError(
            f"{where}: pre_tokenizer {text['pre_tokenizer'].get('type')!r} splits the text, "
            f"llama.cpp merges across all of it"
        )
    return TextForm(MODEL, PRE, space_prefix=PREPEND_SPACE in steps, unicode_form="as_is")


def type_of(token: str, model: dict[str, Any]) -> int:
    """Bytes and the unknown token have types of their own."""
    if BYTE_TOKEN.fullmatch(token):
        return BYTE
    return UNKNOWN if token == model.get("unk_token") else NORMAL


def plain_text(token: str) -> str:
    """llama.cpp looks for added tokens before it rewrites the spaces."""
    return token.replace(SPACE, " ")


def scores_of(tokens: Sequence[str], merges: Sequence[str]) -> tuple[float, ...]:
    """A score for each token: the earlier its merge, the higher."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return tuple(-float(ranks[token]) if token in ranks else UNMERGED for token in tokens)


def require_unreachable_control_tokens(
    tokens: Sequence[str], types: Sequence[int], where: str
) -> None:
    """Refuse a vocabulary in which plain text could become a control token.

    llama.cpp merges any two neighbours whose joint text is a token, whatever its type. A control
    token is safe where it is not the sum of two things that can stand side by side: letters or
    tokens.
    """
    known = set(tokens)
    for token, kind in zip(tokens, types, strict=True):
        if kind not in (CONTROL, UNKNOWN, UNUSED):
            continue
        for left, right in ((token[:cut], token[cut:]) for cut in range(1, len(token))):
            if all(len(part) == 1 or part in known for part in (left, right)):
                raise CheckpointError(
                    f"{where}: llama.cpp would read the text {token!r} as a control token, because "
                    f"{left!r} and {right!r} are tokens too; export to another target"
                )


def _normalizers(text: dict[str, Any]) -> list[dict[str, Any]]:
    normalizer = text.get("normalizer")
    if normalizer is None:
        return []
    steps = normalizer.get("normalizers", [normalizer])
    if not isinstance(steps, list):
        raise TypeError("normalizers are no list")
    return steps


def _splits_nothing(step: dict[str, Any] | None) -> bool:
    """Gemma's tokenizers split at spaces after all of them have been replaced."""
    if step is None:
        return True
    return bool(step.get("type") == "Split" and step.get("pattern") == {"String": " "})
