"""StableLM's Arcade100k: ranks of byte strings in tiktoken's format, as byte-level BPE."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models

from tinyllava_export.checkpoints.added_tokens import Added, add_tokens
from tinyllava_export.checkpoints.byte_level_bpe import (
    QWEN2_PATTERN,
    byte_symbols,
    split_then_bytes,
)
from tinyllava_export.errors import CheckpointError

RANKS_FILE = "arcade100k.tiktoken"
# Written in the tokenizer's code, not in its file; they follow the ranks in this order.
SPECIALS = (
    "<|endoftext|>",
    *(f"<|fim_{part}|>" for part in ("prefix", "middle", "suffix", "pad")),
    "<gh_stars>",
    "<filename>",
    *(f"<issue_{part}>" for part in ("start", "comment", "closed")),
    *(f"<jupyter_{part}>" for part in ("start", "text", "code", "output")),
    "<empty_output>",
    *(f"<commit_{part}>" for part in ("before", "msg", "after")),
    "<reponame>",
    "<|endofprompt|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|pause|>",
    *(f"<|reg{number}|>" for number in range(8)),
    "<|extra0|>",
)
# An id between the ranks and the special tokens that no token has.
FREE = "<|free|>"


def tiktoken_bpe(folder: Path) -> Tokenizer:
    """The tokenizer. It splits text like Qwen2's. Raises ``CheckpointError`` if it is damaged."""
    ranks = _read_ranks(folder / RANKS_FILE)
    symbols = byte_symbols()
    names = {token: "".join(symbols[byte] for byte in token) for token in ranks}
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    vocabulary[FREE] = len(ranks)
    merges = [(names[left], names[right]) for left, right in _merges(ranks)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = split_then_bytes(QWEN2_PATTERN)
    tokenizer.decoder = decoders.ByteLevel()
    first = len(vocabulary)
    specials = [Added(first + n, content, special=True) for n, content in enumerate(SPECIALS)]
    add_tokens(tokenizer, specials, folder=folder)
    return tokenizer


def _read_ranks(path: Path) -> dict[bytes, int]:
    """Byte strings and their ranks, which are their ids."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise CheckpointError(
                f"{path}: line {number} is no token and rank; copy it again"
            ) from None
    single = sum(len(token) == 1 for token in ranks)
    if single != 256 or sorted(ranks.values()) != list(range(len(ranks))):
        raise CheckpointError(
            f"{path}: {single} of 256 bytes have a rank, of {len(ranks)} ranks; copy it again"
        )
    return ranks


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two tokens that each longer token is joined from, in the order of the ranks.

    They are what is left of its bytes when every join of a lower rank has been made.
    """
    for token, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
        parts = [token[place : place + 1] for place in range(len(token))]
        while len(parts) > 2:
            joins = [
                (ranks.get(left + right, rank), place)
                for place, (left, right) in enumerate(itertools.pairwise(parts))
            ]
            best, place = min(joins)
            if best >= rank:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]
