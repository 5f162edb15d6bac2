"""The types of a token in GGUF, and how a tokenizer treats text before it merges."""

from __future__ import annotations

from dataclasses import dataclass

# From gguf.TokenType, which is llama.cpp's llama_token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class TextForm:
    """What happens to a piece of text before its parts are merged.

    ``model`` and ``pre`` are llama.cpp's names of the algorithm and the splitting pattern,
    ``space_prefix`` says whether each piece starts with a space of its own, ``unicode_form`` is
    ``as_is`` or ``NFC``.
    """

    model: str
    pre: str
    space_prefix: bool
    unicode_form: str
