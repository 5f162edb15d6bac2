"""The tokenizer of a checkpoint folder, whichever files it is in, as a ``tokenizer.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, normalizers

from tinyllava_export.checkpoints.added_tokens import CONFIG_FILE, named_tokens
from tinyllava_export.checkpoints.byte_level_bpe import byte_level_bpe, has_byte_level_bpe
from tinyllava_export.checkpoints.json_file import read_json_object, read_optional_json
from tinyllava_export.checkpoints.sentencepiece_bpe import MODEL_FILE, SPACE, sentencepiece_bpe
from tinyllava_export.checkpoints.tiktoken_bpe import RANKS_FILE, tiktoken_bpe
from tinyllava_export.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"
REPLACE_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
# What transformers' classes take where the settings of a tokenizer do not say.
NAMED_BY_CLASS = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>"},
    "GemmaTokenizer": {"bos_token": "<bos>", "eos_token": "<eos>"},
    "GPT2Tokenizer": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "CodeGenTokenizer": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "Qwen2Tokenizer": {"eos_token": "<|endoftext|>"},
    "Arcade100kTokenizer": {"eos_token": "<|endoftext|>"},
}
CLASSES_WITH_BOS = ("LlamaTokenizer", "GemmaTokenizer")


@dataclass(frozen=True)
class TokenizerFacts:
    """What a tokenizer says about prompts.

    ``bos_token_id`` is None where no prompt starts with it; ``adds_space`` tells a tokenizer
    that starts every piece of text with a space of its own, ``spaces_first`` one that did so with
    the first piece of a text alone, which the prompt then has to write; ``unicode_form`` is the
    one that it brings text into.
    """

    bos_token_id: int | None
    eos_token_id: int | None
    adds_space: bool
    spaces_first: bool
    unicode_form: Literal["as_is", "NFC"]
    length: int
    control_tokens: tuple[str, ...] = ()


def read_tokenizer_json(folder: Path) -> bytes:
    """The content of a ``tokenizers`` tokenizer that gives the prompt ids of the original.

    Each piece of text is encoded by itself with ``add_special_tokens=False``. A
    ``tokenizer.json`` is taken as it is, but for a space that it puts before the first piece of
    a text only (``TokenizerFacts.spaces_first``); a SentencePiece model, ``vocab.json`` with
    ``merges.txt`` and tiktoken ranks are converted. Raises ``CheckpointError`` where the folder
    has none of them, or one that cannot be converted exactly.
    """
    path = folder / TOKENIZER_FILE
    if path.is_file():
        content = read_json_object(path)
        if spaces_first_piece(content):
            plain = {"normalizer": REPLACE_SPACES, "pre_tokenizer": None}
            return json.dumps({**content, **plain}, ensure_ascii=False).encode()
        return path.read_bytes()
    if (folder / MODEL_FILE).is_file():
        tokenizer = sentencepiece_bpe(folder)
    elif has_byte_level_bpe(folder):
        tokenizer = byte_level_bpe(folder)
    elif (folder / RANKS_FILE).is_file():
        tokenizer = tiktoken_bpe(folder)
    else:
        raise CheckpointError(
            f"{folder}: no tokenizer ({TOKENIZER_FILE}, {MODEL_FILE}, vocab.json with merges.txt "
            f"or {RANKS_FILE}); save the tokenizer in the checkpoint's folder"
        )
    converted: bytes = tokenizer.to_str().encode()
    return converted


def spaces_first_piece(content: dict[str, Any]) -> bool:
    """Whether a ``tokenizer.json`` puts a space before the first piece of a text alone.

    Llama's fast tokenizers do so (``legacy=False``): not after a special token, such as the
    picture's, in the middle of a text.
    """
    step = content.get("pre_tokenizer")
    return (
        isinstance(step, dict)
        and step.get("type") == "Metaspace"
        and step.get("replacement") == SPACE
        and step.get("prepend_scheme") == "first"
        and step.get("split") is False
        and content.get("normalizer") is None
    )


def read_tokenizer_facts(folder: Path) -> TokenizerFacts:
    """What the folder's tokenizer says about prompts. Raises ``CheckpointError`` as above."""
    tokenizer = _load(folder, read_tokenizer_json(folder))
    settings = read_optional_json(folder / CONFIG_FILE)
    kind = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    named = {**NAMED_BY_CLASS.get(kind, {}), **named_tokens(folder)}
    starts = tokenizer.encode("").ids
    adds_bos = settings.get("add_bos_token")
    if not isinstance(adds_bos, bool):
        adds_bos = kind in CLASSES_WITH_BOS or bool(starts)
    bos = tokenizer.token_to_id(named.get("bos_token", ""))
    if bos is None and starts:
        bos = starts[0]
    first = tokenizer.encode("x", add_special_tokens=False).tokens[:1]
    return TokenizerFacts(
        bos_token_id=bos if adds_bos else None,
        eos_token_id=tokenizer.token_to_id(named.get("eos_token", "")),
        spaces_first=spaces_first_piece(read_optional_json(folder / TOKENIZER_FILE)),
        adds_space=bool(first) and first[0].startswith(SPACE),
        unicode_form="NFC" if isinstance(tokenizer.normalizer, normalizers.NFC) else "as_is",
        length=tokenizer.get_vocab_size(with_added_tokens=True),
        control_tokens=tuple(
            token.content
            for token in tokenizer.get_added_tokens_decoder().values()
            if token.special
        ),
    )


def sentencepiece_file(folder: Path) -> Path | None:
    """The SentencePiece model, whose scores GGUF wants, or None where there is none."""
    path = folder / MODEL_FILE
    return path if path.is_file() else None


def _load(folder: Path, content: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(content.decode())
    except Exception as error:  # noqa: BLE001 - the Rust library raises nothing narrower
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE}: not a tokenizer ({error}); save it again"
        ) from None
