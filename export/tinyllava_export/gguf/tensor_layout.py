"""Names, order and form of a language model's numbers in GGUF."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from gguf import get_tensor_name_map

from tinyllava_export.checkpoints.contract import Checkpoint, TextShape
from tinyllava_export.checkpoints.names import EMBEDDINGS, HEAD
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.families import Family, family_of

PREFIX = "text."
OUTPUT = "output.weight"
SUFFIXES = (".weight", ".bias")
NORM = "norm.weight"
# Tables that older releases of transformers stored, which llama.cpp computes by itself.
COMPUTED = ".rotary_emb.inv_freq"


@dataclass(frozen=True)
class Placed:
    """A tensor of the checkpoint by neutral name, and its name in GGUF; the shape is the same."""

    source: str
    target: str
    shape: tuple[int, ...]


def place_tensors(checkpoint: Checkpoint) -> tuple[Placed, ...]:
    """Every tensor that the file gets, in the order in which they are written.

    A tied output head is left out where llama.cpp then reads the embedding table twice, and
    written out where it does not. Raises ``CheckpointError`` for a tensor without a place.
    """
    return tuple(
        Placed(source, target, checkpoint.tensors.shape(source))
        for source, target in _names(checkpoint, family_of(checkpoint))
    )


def _names(checkpoint: Checkpoint, family: Family) -> Iterator[tuple[str, str]]:
    names = get_tensor_name_map(family.arch, checkpoint.text.layers)
    for name in checkpoint.tensors.names(PREFIX):
        if name.endswith(COMPUTED) or (name == HEAD and checkpoint.text.tied_embeddings):
            continue
        target = names.get_name(name.removeprefix(PREFIX), try_suffixes=SUFFIXES)
        if target is None:
            raise CheckpointError(
                f"{checkpoint.folder}: tensor {name} has no place in a GGUF of the "
                f"{checkpoint.text.family} family; is it another family?"
            )
        yield name, target
    if checkpoint.text.tied_embeddings and family.head == "required":
        yield EMBEDDINGS, OUTPUT


def read_placed(checkpoint: Checkpoint, placed: Placed) -> torch.Tensor:
    """The numbers as llama.cpp's graph of the family expects them, in their stored type.

    Norm weights with an offset come in float32. Raises ``CheckpointError`` if damaged.
    """
    family = family_of(checkpoint)
    tensor = checkpoint.tensors.read(placed.source)
    if family.norm_offset and placed.source.endswith(NORM):
        return tensor.float() + family.norm_offset
    if family.paired_rotary:
        return pair_rotary_dims(placed.source, tensor, checkpoint.text)
    return tensor


def pair_rotary_dims(name: str, tensor: torch.Tensor, text: TextShape) -> torch.Tensor:
    """Put the rows of Q and K in llama.cpp's order of rotary pairs; others pass unchanged.

    transformers rotates dimension ``i`` with ``i + head_dim / 2``, llama.cpp's Llama graph ``2i``
    with ``2i + 1`` (the same permutation as in llama.cpp's own converter).
    """
    if ".self_attn.q_proj." in name:
        heads = text.heads
    elif ".self_attn.k_proj." in name:
        heads = text.kv_heads
    else:
        return tensor
    halves = tensor.reshape(heads, 2, text.head_dim // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)
