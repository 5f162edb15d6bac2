"""Tokens that a tokenizer has beside its vocabulary, and the names of those with a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tinyllava_export.checkpoints.json_file import read_optional_json
from tinyllava_export.errors import CheckpointError

CONFIG_FILE = "tokenizer_config.json"
ADDED_FILE = "added_tokens.json"
SPECIALS_FILE = "special_tokens_map.json"


@dataclass(frozen=True)
class Added:
    """A token with its id; a special one is not looked for in text from outside."""

    id: int
    content: str
    special: bool
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def named_tokens(folder: Path) -> dict[str, str]:
    """``{"eos_token": "</s>", ...}`` of the tokenizer's settings; empty where there are none."""
    named: dict[str, str] = {}
    for file in (SPECIALS_FILE, CONFIG_FILE):
        for name, value in read_optional_json(folder / file).items():
            content = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(content, str):
                named[name] = content
    return named


def read_added_tokens(folder: Path) -> list[Added]:
    """The added tokens of a slow tokenizer, in the order of their ids.

    ``tokenizer_config.json`` has them with their flags since transformers 4.34,
    ``added_tokens.json`` their ids alone.
    """
    settings = read_optional_json(folder / CONFIG_FILE)
    specials = {*named_tokens(folder).values(), *_additional(folder)}
    found: dict[int, Added] = {}
    for content, number in read_optional_json(folder / ADDED_FILE).items():
        token_id = _token_id(folder / ADDED_FILE, number)
        special = content in specials
        found[token_id] = Added(token_id, content, special, normalized=not special)
    decoder = settings.get("added_tokens_decoder")
    for number, token in (decoder if isinstance(decoder, dict) else {}).items():
        token_id = _token_id(folder / CONFIG_FILE, number)
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise CheckpointError(
                f"{folder / CONFIG_FILE}: added token {number} has no content; save the "
                f"tokenizer again"
            )
        flags = ("special", "normalized", "lstrip", "rstrip", "single_word")
        found[token_id] = Added(
            token_id, token["content"], **{flag: bool(token.get(flag)) for flag in flags}
        )
    return [found[token_id] for token_id in sorted(found)]


def add_tokens(tokenizer: Tokenizer, added: list[Added], *, folder: Path) -> None:
    """Add the tokens. Raises ``CheckpointError`` where one would get another id than it has."""
    for token in added:
        entry = AddedToken(
            token.content,
            special=token.special,
            normalized=token.normalized,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            single_word=token.single_word,
        )
        if token.special:
            tokenizer.add_special_tokens([entry])
        else:
            tokenizer.add_tokens([entry])
        got = tokenizer.token_to_id(token.content)
        if got != token.id:
            raise CheckpointError(
                f"{folder}: added token {token.content!r} has id {token.id}, the vocabulary "
                f"leaves it {got}; vocabulary and added tokens are of different tokenizers"
            )


def _additional(folder: Path) -> list[str]:
    named: list[str] = []
    for file in (SPECIALS_FILE, CONFIG_FILE):
        values: Any = read_optional_json(folder / file).get("additional_special_tokens")
        for value in values if isinstance(values, list) else ():
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                named.append(content)
    return named


def _token_id(path: Path, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).isdecimal():
        raise CheckpointError(f"{path}: token id {value!r:.40} is no number; save it again")
    return int(value)
