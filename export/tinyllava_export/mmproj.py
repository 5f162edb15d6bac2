"""Tower and connector as ``mmproj.gguf`` for stock llama.cpp and what is built on it.

Written only where stock llama.cpp computes the features of the checkpoint. It does for SigLIP with
a two-layer MLP: its graph leaves out the last layer it is given, so one more is written than the
features pass through. That layer is all zeros, which makes it the identity: the features are the
same in a llama.cpp that does compute it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFType, GGUFWriter, LlamaFileType
from numpy.typing import NDArray

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.modules import expected_vision_tensors, used_layers

SIGLIP, CLIP = "siglip_vision_model", "clip_vision_model"
CONNECTOR = "mlp2x_gelu"
# llama.cpp's fill for the projector kind "mlp", whatever the model's mean is.
FILL_RGB = (122, 116, 104)
GELU_OF_ACTIVATION = {"gelu_pytorch_tanh": True, "quick_gelu": False}
PARTS = {
    "vision.embeddings.patch_embedding": "v.patch_embd",
    "vision.embeddings.position_embedding": "v.position_embd",
    "connector.0": "mm.0",
    "connector.2": "mm.2",
}
LAYER_PARTS = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
LAYERS = "vision.encoder.layers."


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file, its numbers made when they are written."""

    name: str
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    make: Callable[[], NDArray[Any]]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.kind.itemsize


def mmproj_obstacle(checkpoint: Checkpoint) -> str | None:
    """Why stock llama.cpp would compute other features than the checkpoint's, or None."""
    return next(_obstacles(checkpoint), None)


def mmproj_caveat(checkpoint: Checkpoint) -> str | None:
    """What differs before the features are computed, or None: the colour around a picture."""
    if checkpoint.semantics.image.fill_rgb == FILL_RGB:
        return None
    return (
        f"llama.cpp pads with {FILL_RGB}, this model was trained with "
        f"{checkpoint.semantics.image.fill_rgb}; square pictures are the same"
    )


def mmproj_type(bits: int) -> str:
    """The type of the file's matrices."""
    return "F32" if bits >= 32 else "F16"


def mmproj_bytes(checkpoint: Checkpoint, bits: int) -> int:
    """Size of the tensors of ``mmproj.gguf``; reads none."""
    return sum(tensor.bytes for tensor in _tensors(checkpoint, _matrix_kind(bits)))


def write_mmproj(checkpoint: Checkpoint, path: Path, *, name: str, bits: int) -> None:
    """Write ``mmproj.gguf`` with matrices in float32 for 32 bits, in float16 for less.

    One tensor is in memory at a time, and the same checkpoint gives the same bytes. Asks for a
    checkpoint without ``mmproj_obstacle``. Raises ``CheckpointError`` for a damaged tensor.
    """
    kind = _matrix_kind(bits)
    tensors = list(_tensors(checkpoint, kind))
    writer = GGUFWriter(path, "clip")
    try:
        _add_settings(writer, checkpoint, name)
        writer.add_file_type(
            LlamaFileType.ALL_F32 if kind == np.float32 else LlamaFileType.MOSTLY_F16
        )
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, list(tensor.shape), tensor.kind, tensor.bytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.make())
    finally:
        writer.close()


def _obstacles(checkpoint: Checkpoint) -> Iterator[str]:
    semantics, tower = checkpoint.semantics, checkpoint.vision_config
    if tower["model_type"] == CLIP:
        yield "llama.cpp puts CLIP's class token last, its position table has it first"
    if tower["model_type"] != SIGLIP:
        yield f"llama.cpp has no {semantics.tower.kind} tower with an MLP behind it"
    if semantics.connector.kind != CONNECTOR:
        yield f"llama.cpp has no {semantics.connector.kind} connector behind SigLIP"
    if not all(f"connector.{index}.bias" in checkpoint.tensors for index in (0, 2)):
        yield "llama.cpp's connector has biases, this one has not"
    if dropped := semantics.tower.dropped_tokens:
        yield f"llama.cpp keeps every patch, this model drops the first {dropped}"
    if tower["hidden_act"] not in GELU_OF_ACTIVATION:
        yield f"llama.cpp has no {tower['hidden_act']} in a SigLIP tower"
    if semantics.image.aspect != "pad":
        verb = {"squash": "squashes", "crop": "crops"}[semantics.image.aspect]
        yield f"llama.cpp pads a picture to a square, this model {verb} it"


def _matrix_kind(bits: int) -> np.dtype[Any]:
    return np.dtype(np.float32 if mmproj_type(bits) == "F32" else np.float16)


def _add_settings(writer: GGUFWriter, checkpoint: Checkpoint, name: str) -> None:
    tower, image = checkpoint.vision_config, checkpoint.semantics.image
    writer.add_type(GGUFType.MMPROJ)
    writer.add_name(name)
    writer.add_license(checkpoint.licence)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_use_gelu(GELU_OF_ACTIVATION[tower["hidden_act"]])
    writer.add_vision_image_size(image.size)
    writer.add_vision_image_mean(list(image.mean))
    writer.add_vision_image_std(list(image.std))
    writer.add_vision_patch_size(tower["patch_size"])
    writer.add_vision_embedding_length(tower["hidden_size"])
    writer.add_vision_feed_forward_length(tower["intermediate_size"])
    writer.add_vision_head_count(tower["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(tower["layer_norm_eps"])
    writer.add_vision_projection_dim(checkpoint.text.hidden)
    writer.add_vision_block_count(_used(checkpoint) + 1)


def _tensors(checkpoint: Checkpoint, matrix_kind: np.dtype[Any]) -> Iterator[_Tensor]:
    """The features' tensors, then a layer of zeros with the shapes of the first."""
    shapes = expected_vision_tensors(checkpoint)
    for name, shape in shapes.items():
        yield _stored(checkpoint, name, shape, matrix_kind)
    for name, shape in shapes.items():
        if name.startswith(f"{LAYERS}0."):
            closing = name.replace(f"{LAYERS}0.", f"{LAYERS}{_used(checkpoint)}.")
            yield _zeros(_gguf_name(closing, checkpoint), shape, matrix_kind)


def _stored(
    checkpoint: Checkpoint, name: str, shape: tuple[int, ...], matrix_kind: np.dtype[Any]
) -> _Tensor:
    """Vectors are few, and llama.cpp adds them, and the positions, in float32."""
    vector = len(shape) == 1 or "position_embedding" in name
    kind = np.dtype(np.float32) if vector else matrix_kind

    def make() -> NDArray[Any]:
        return np.ascontiguousarray(checkpoint.tensors.read(name).float().numpy().astype(kind))

    return _Tensor(_gguf_name(name, checkpoint), shape, kind, make)


def _zeros(name: str, shape: tuple[int, ...], matrix_kind: np.dtype[Any]) -> _Tensor:
    kind = np.dtype(np.float32) if len(shape) == 1 else matrix_kind
    return _Tensor(name, shape, kind, lambda: np.zeros(shape, dtype=kind))


def _gguf_name(name: str, checkpoint: Checkpoint) -> str:
    part, _, kind = name.rpartition(".")
    if part in PARTS:
        return f"{PARTS[part]}.{kind}"
    layer, _, part = part.removeprefix(LAYERS).partition(".")
    target = LAYER_PARTS[part]
    tower = checkpoint.vision_config
    if tower["intermediate_size"] == tower["hidden_size"]:
        # llama.cpp takes such a feed-forward network for one of the files that named its two
        # matrices the wrong way round, and turns them.
        target = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}.get(target, target)
    return f"v.blk.{layer}.{target}.{kind}"


def _used(checkpoint: Checkpoint) -> int:
    layers: int = checkpoint.vision_config["num_hidden_layers"]
    return used_layers(layers, checkpoint.semantics.tower.feature_layer)
