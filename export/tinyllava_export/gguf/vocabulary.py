"""A tokenizer in the form that GGUF wants.

llama.cpp has tokenizers of its own; they give the same ids only for what is checked here. Anything
else is refused, because a tokenizer that is nearly right gives answers that are quietly wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyllava_export.checkpoints.added_tokens import named_tokens
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf import byte_level, sentencepiece_bpe
from tinyllava_export.gguf.token_types import CONTROL, NORMAL, UNUSED, USER_DEFINED


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, their types, and the ids with a meaning.

    ``model`` is llama.cpp's word for the algorithm: ``gpt2`` merges bytes by ``merges`` within
    the words that ``pre`` splits off, ``llama`` merges letters by ``scores`` (empty in the other
    case) and may start every piece of text with a space. ``unicode_form`` is what a text must be
    brought into beforehand, which llama.cpp does not do: ``as_is`` or ``NFC``.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    space_prefix: bool
    unicode_form: str
    pad_id: int | None
    unk_id: int | None


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The checkpoint's tokenizer, padded to the embedding table.

    Raises ``CheckpointError`` where llama.cpp would not give the same ids.
    """
    vocabulary = parse_vocabulary(
        checkpoint.tokenizer_json(),
        checkpoint.text.vocabulary,
        where=f"{checkpoint.folder}: tokenizer",
        named=named_tokens(checkpoint.folder),
    )
    said = checkpoint.semantics.prompt.unicode_form
    if vocabulary.unicode_form != said:
        raise CheckpointError(
            f"{checkpoint.folder}: the tokenizer brings text into the Unicode form "
            f"{vocabulary.unicode_form}, its semantics say {said}; correct prompt.unicode_form"
        )
    return vocabulary


def parse_vocabulary(
    content: bytes, size: int, *, where: str, named: Mapping[str, str] | None = None
) -> Vocabulary:
    """Read the content of a ``tokenizer.json`` and pad it to ``size`` tokens.

    ``where`` names it in errors, ``named`` says which token is the ``pad_token`` and so on. Raises
    ``CheckpointError`` as ``read_vocabulary`` does.
    """
    text = _parse(content, where)
    try:
        return _vocabulary(text, size, where, named or {})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{where}: not a BPE tokenizer ({error!r}); only those can be exported"
        ) from None


def _vocabulary(
    text: dict[str, Any], size: int, where: str, named: Mapping[str, str]
) -> Vocabulary:
    _refuse_unfollowed(text, where)
    by_letters = bool(text["model"].get("byte_fallback"))
    read_form = sentencepiece_bpe.read_form if by_letters else byte_level.read_form
    form = read_form(text, where)
    known, types = _typed_tokens(text, by_letters)
    if max(known) >= size:
        raise CheckpointError(
            f"{where}: token id {max(known)} is beyond the embedding table of {size}; the "
            f"tokenizer is of another model"
        )
    ids = {token: i for i, token in known.items()}
    tokens = tuple(known.get(i, f"[PAD{i}]") for i in range(size))
    all_types = tuple(types.get(i, UNUSED) for i in range(size))
    merges = tuple(_merge(merge) for merge in text["model"]["merges"])
    if by_letters:
        sentencepiece_bpe.require_unreachable_control_tokens(tokens, all_types, where)
    return Vocabulary(
        model=form.model,
        pre=form.pre,
        tokens=tokens,
        types=all_types,
        merges=() if by_letters else merges,
        scores=sentencepiece_bpe.scores_of(tokens, merges) if by_letters else (),
        space_prefix=form.space_prefix,
        unicode_form=form.unicode_form,
        pad_id=ids.get(named.get("pad_token", "")),
        unk_id=ids.get(named.get("unk_token", "")),
    )


def _typed_tokens(text: dict[str, Any], by_letters: bool) -> tuple[dict[int, str], dict[int, int]]:
    """Tokens and their types by id; an added token stands in for one of the vocabulary."""
    model = text["model"]
    tokens = {int(i): token for token, i in model["vocab"].items()}
    types = dict.fromkeys(tokens, NORMAL)
    if by_letters:
        types = {i: sentencepiece_bpe.type_of(token, model) for i, token in tokens.items()}
    for added in text.get("added_tokens", ()):
        i, token, special = added["id"], added["content"], added["special"]
        if by_letters and not special:
            token = sentencepiece_bpe.plain_text(token)
        tokens[i] = token
        if types.get(i, NORMAL) == NORMAL:
            types[i] = CONTROL if special else USER_DEFINED
    return tokens, types


def _refuse_unfollowed(text: dict[str, Any], where: str) -> None:
    """What neither of llama.cpp's BPE tokenizers follows."""
    model = text["model"]
    if model.get("type") != "BPE":
        raise CheckpointError(f"{where}: model {model.get('type')!r}; only BPE works")
    for name in ("ignore_merges", "dropout", "end_of_word_suffix", "continuing_subword_prefix"):
        if model.get(name):
            raise CheckpointError(f"{where}: {name} is set, which llama.cpp does not follow here")
    for added in text.get("added_tokens", ()):
        flags = [name for name in ("single_word", "lstrip", "rstrip") if added.get(name)]
        if flags and not added["special"]:
            raise CheckpointError(
                f"{where}: added token {added['content']!r} has {flags[0]}, which llama.cpp does "
                f"not follow; save the tokenizer without it"
            )


def _merge(merge: str | list[str]) -> str:
    """Older files write a merge as ``"a b"``, newer ones as ``["a", "b"]``."""
    return merge if isinstance(merge, str) else " ".join(merge)


def _parse(content: bytes, where: str) -> dict[str, Any]:
    try:
        text = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not valid JSON ({error}); save it again") from None
    if not isinstance(text, dict):
        raise CheckpointError(f"{where}: not a JSON object; save it again")
    return text
