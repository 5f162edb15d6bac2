"""Names and order of a Llama-style model's numbers in GGUF."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gguf import MODEL_ARCH, get_tensor_name_map

from tinyllava_export.checkpoints.contract import Checkpoint, TextShape
from tinyllava_export.errors import CheckpointError

PREFIX = "text."
HEAD = "text.lm_head.weight"
SUFFIXES = (".weight", ".bias")


def gguf_names(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Pairs of neutral name and GGUF name, in the order in which they are written.

    Leaves out a tied output head: llama.cpp then reads the embedding table twice.
    """
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, checkpoint.text.layers)
    for name in checkpoint.tensors.names(PREFIX):
        if name == HEAD and checkpoint.text.tied_embeddings:
            continue
        target = names.get_name(name.removeprefix(PREFIX), try_suffixes=SUFFIXES)
        if target is None:
            raise CheckpointError(
                f"{checkpoint.folder}: tensor {name} has no place in a Llama GGUF; is it another "
                f"family?"
            )
        yield name, target


def reorder_for_rope(name: str, tensor: torch.Tensor, text: TextShape) -> torch.Tensor:
    """Put the rows of Q and K in llama.cpp's order of rotary pairs.

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
