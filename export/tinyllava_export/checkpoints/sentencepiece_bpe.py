"""SentencePiece BPE models (Llama, Gemma) as a ``tokenizers`` tokenizer.

The result behaves like transformers' slow tokenizers: each piece of text that is encoded starts
with the model's dummy space, where it has one.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, normalizers

from tinyllava_export.checkpoints.added_tokens import (
    CONFIG_FILE,
    Added,
    add_tokens,
    named_tokens,
    read_added_tokens,
)
from tinyllava_export.checkpoints.json_file import read_optional_json
from tinyllava_export.errors import CheckpointError

MODEL_FILE = "tokenizer.model"
SPACE = "▁"
# From sentencepiece_model.proto.
BPE = 2
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4


def sentencepiece_bpe(folder: Path) -> Tokenizer:
    """The tokenizer of ``tokenizer.model``. Raises ``CheckpointError`` for any but byte-fallback
    BPE without rewriting of the text.
    """
    path = folder / MODEL_FILE
    proto = _read(path)
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    unknown = next((p.piece for p in proto.pieces if p.type == UNKNOWN), None)
    if unknown is None or len(vocabulary) != len(proto.pieces):
        raise CheckpointError(f"{path}: no unknown token, or one piece twice; copy it again")
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(vocabulary, {p.piece: p.score for p in proto.pieces}),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = _adds_prefix(folder, default=proto.normalizer_spec.add_dummy_prefix)
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, decoders.Strip(content=" ", left=1, right=0)] if prefix else steps
    )
    add_tokens(tokenizer, _added(folder, proto), folder=folder)
    return tokenizer


def _read(path: Path) -> sentencepiece_model_pb2.ModelProto:
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise CheckpointError(f"{path}: damaged; copy it again") from None
    if not all(isinstance(piece.piece, str) for piece in proto.pieces):
        # What is not UTF-8 comes as bytes.
        raise CheckpointError(f"{path}: damaged; a piece is no text: copy it again")
    spec, trainer = proto.normalizer_spec, proto.trainer_spec
    if trainer.model_type != BPE or not trainer.byte_fallback:
        raise CheckpointError(f"{path}: not BPE with byte fallback; only that can be exported")
    if spec.precompiled_charsmap or spec.remove_extra_whitespaces:
        raise CheckpointError(
            f"{path}: rewrites text before it splits it ({spec.name}), which llama.cpp does not; "
            f"only the identity can be exported"
        )
    return proto


def _merges(vocabulary: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to join two tokens to a third, the best third first.

    SentencePiece has no list of merges: it joins the neighbours whose joint piece scores best.
    """
    merges = []
    for piece in vocabulary:
        ways = [
            (piece[:cut], piece[cut:])
            for cut in range(1, len(piece))
            if piece[:cut] in vocabulary and piece[cut:] in vocabulary
        ]
        ways.sort(key=lambda way: (vocabulary[way[0]], vocabulary[way[1]]))
        merges += [(scores[piece], way) for way in ways]
    merges.sort(key=lambda merge: merge[0], reverse=True)
    return [way for _, way in merges]


def _adds_prefix(folder: Path, *, default: bool) -> bool:
    setting = read_optional_json(folder / CONFIG_FILE).get("add_prefix_space")
    return setting if isinstance(setting, bool) else default


def _added(folder: Path, proto: sentencepiece_model_pb2.ModelProto) -> list[Added]:
    """Control and user-defined pieces, and what the tokenizer's settings add or say of them.

    SentencePiece looks for user-defined pieces after it has written spaces in its own way.
    """
    named = set(named_tokens(folder).values())
    found = {
        number: Added(
            number,
            piece.piece,
            special=piece.type != USER_DEFINED or piece.piece in named,
            normalized=piece.type == USER_DEFINED and piece.piece not in named,
        )
        for number, piece in enumerate(proto.pieces)
        if piece.type in (UNKNOWN, CONTROL, USER_DEFINED)
    }
    found.update({token.id: token for token in read_added_tokens(folder)})
    return [found[number] for number in sorted(found)]
