"""Write the language model as GGUF, one tensor in memory at a time."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf.families import family_of, rotary_dims
from tinyllava_export.gguf.tensor_layout import PREFIX, Placed, place_tensors, read_placed
from tinyllava_export.gguf.vocabulary import Vocabulary, read_vocabulary

Precision = Literal["F16", "BF16", "F32"]
FILE_TYPES: dict[Precision, LlamaFileType] = {
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "F32": LlamaFileType.ALL_F32,
}
TENSOR_TYPES: dict[Precision, GGMLQuantizationType] = {
    "F16": GGMLQuantizationType.F16,
    "BF16": GGMLQuantizationType.BF16,
    "F32": GGMLQuantizationType.F32,
}
# What numpy holds them in; it has no bfloat16.
CONTAINERS: dict[Precision, np.dtype[Any]] = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(np.int16),
    "F32": np.dtype(np.float32),
}


def write_language_model(
    checkpoint: Checkpoint, path: Path, *, name: str, precision: Precision
) -> None:
    """Write weights, settings and tokenizer to ``path``; vectors stay float32 in any precision.

    The same checkpoint gives the same bytes. Raises ``CheckpointError`` for a family, a tokenizer
    or a tensor that llama.cpp would read differently.
    """
    family = family_of(checkpoint)
    vocabulary = read_vocabulary(checkpoint)
    placed = place_tensors(checkpoint)
    writer = GGUFWriter(path, family.name)
    try:
        _add_settings(writer, checkpoint, name)
        writer.add_file_type(FILE_TYPES[precision])
        _add_vocabulary(writer, vocabulary, checkpoint)
        for tensor in placed:
            kept = _precision_of(tensor, precision)
            size = prod(tensor.shape) * CONTAINERS[kept].itemsize
            writer.add_tensor_info(
                tensor.target, list(tensor.shape), CONTAINERS[kept], size, TENSOR_TYPES[kept]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in placed:
            kept = _precision_of(tensor, precision)
            writer.write_tensor_data(_numbers(checkpoint, tensor, kept))
    finally:
        writer.close()


def lossless_precision(checkpoint: Checkpoint) -> Precision:
    """The smallest precision that still holds every stored number of the matrices."""
    tensors = checkpoint.tensors
    matrices = [name for name in tensors.names(PREFIX) if len(tensors.shape(name)) > 1]
    stored = {tensors.dtype(name) for name in matrices}
    if stored == {"F16"}:
        return "F16"
    return "BF16" if stored == {"BF16"} else "F32"


def _precision_of(placed: Placed, precision: Precision) -> Precision:
    """Vectors are few, and llama.cpp adds them in float32."""
    return precision if len(placed.shape) > 1 else "F32"


def _numbers(checkpoint: Checkpoint, placed: Placed, precision: Precision) -> np.ndarray[Any, Any]:

    tensor = read_placed(checkpoint, placed)
    if precision == "BF16":
        bits: np.ndarray[Any, Any] = tensor.bfloat16().contiguous().view(torch.int16).numpy()
        return bits
    tensor = tensor.float()
    if precision == "F16" and tensor.abs().max() > torch.finfo(torch.float16).max:
        raise CheckpointError(
            f"{checkpoint.folder}: tensor {placed.source} has numbers up to "
            f"{float(tensor.abs().max()):.3g}, float16 ends at 65504; use --bits 32 or --quant BF16"
        )
    array: np.ndarray[Any, Any] = np.ascontiguousarray(
        tensor.numpy().astype(CONTAINERS[precision], copy=False)
    )
    return array


def _add_settings(writer: GGUFWriter, checkpoint: Checkpoint, name: str) -> None:
    text = checkpoint.text
    writer.add_type("model")
    writer.add_name(name)
    writer.add_license(checkpoint.licence)
    writer.add_context_length(text.context_tokens)
    writer.add_embedding_length(text.hidden)
    writer.add_block_count(text.layers)
    writer.add_feed_forward_length(text.intermediate)
    writer.add_head_count(text.heads)
    writer.add_head_count_kv(text.kv_heads)
    writer.add_key_length(text.head_dim)
    writer.add_value_length(text.head_dim)
    writer.add_rope_dimension_count(rotary_dims(checkpoint))
    writer.add_rope_freq_base(text.rope_theta)
    if family_of(checkpoint).rms_norm:
        writer.add_layer_norm_rms_eps(text.norm_eps)
    else:
        writer.add_layer_norm_eps(text.norm_eps)
    if "use_parallel_residual" in checkpoint.text_config:
        writer.add_parallel_residual(bool(checkpoint.text_config["use_parallel_residual"]))
    writer.add_vocab_size(text.vocabulary)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, checkpoint: Checkpoint) -> None:
    prompt = checkpoint.semantics.prompt
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    if prompt.bos_token_id is not None:
        writer.add_bos_token_id(prompt.bos_token_id)
    writer.add_eos_token_id(prompt.eos_token_ids[0])
    if vocabulary.pad_id is not None:
        writer.add_pad_token_id(vocabulary.pad_id)
    if vocabulary.unk_id is not None:
        writer.add_unk_token_id(vocabulary.unk_id)
    writer.add_add_bos_token(prompt.bos_token_id is not None)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.space_prefix)
