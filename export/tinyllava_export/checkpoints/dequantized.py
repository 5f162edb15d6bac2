"""Weights that bitsandbytes quantized, as QLoRA leaves them, back in float32.

``X.weight`` in int8 has its row scales in ``X.SCB``; in 4 bits it has ``X.weight.absmax``,
``X.weight.quant_map`` and a JSON text in ``X.weight.quant_state.bitsandbytes__nf4`` or ``fp4``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import torch

from tinyllava_export.checkpoints.tensors import TensorSource
from tinyllava_export.errors import CheckpointError

STATE = re.compile(r"^(?P<weight>.+\.weight)\.quant_state\.bitsandbytes__\w+$")
PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


@dataclass(frozen=True)
class FromInt8:
    """Rows of int8 times their scales: ``weight * scale / 127``."""

    weight: TensorSource
    scales: TensorSource

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.weight.shape

    @property
    def dtype(self) -> str:
        """The product's."""
        return "F32"

    def read(self) -> torch.Tensor:
        """Compute it. Raises ``CheckpointError`` if a file is damaged."""
        return self.weight.read().float() * (self.scales.read().float()[:, None] / 127)


@dataclass(frozen=True)
class From4Bit:
    """Two numbers a byte, each an index into a table of 16, scaled block by block."""

    weight: TensorSource
    parts: dict[str, TensorSource]
    state: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str = "F32"

    def read(self) -> torch.Tensor:
        """Compute it. Raises ``CheckpointError`` if a file is damaged."""
        packed = self.weight.read().flatten()
        indices = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
        values = self.parts["quant_map"].read().float()[indices]
        scales = self._scales().repeat_interleave(int(self.state["blocksize"]))
        count = torch.Size(self.shape).numel()
        return (values[:count] * scales[:count]).reshape(self.shape)

    def _scales(self) -> torch.Tensor:
        """One scale a block, themselves quantized to 8 bits where there is a nested state."""
        absmax = self.parts["absmax"].read()
        if "nested_absmax" not in self.parts:
            return absmax.float()
        table = self.parts["nested_quant_map"].read().float()
        outer = self.parts["nested_absmax"].read().float()
        spread = outer.repeat_interleave(int(self.state["nested_blocksize"]))[: absmax.numel()]
        return table[absmax.long()] * spread + float(self.state.get("nested_offset", 0.0))


def dequantize(places: dict[str, TensorSource]) -> None:
    """Put float32 tensors in place of quantized ones and their scales.

    Raises ``CheckpointError`` for int8 weights without scales, which mean nothing.
    """
    for name in [name for name in places if STATE.match(name)]:
        _replace_4bit(places, name)
    for name in [name for name in places if name.endswith(".SCB")]:
        weight = f"{name.removesuffix('.SCB')}.weight"
        if weight not in places:
            raise CheckpointError(f"tensor {name}: scales without a weight; save the model again")
        places[weight] = FromInt8(places[weight], places.pop(name))
    for name in [name for name in places if name.endswith(".weight_format")]:
        del places[name]
    for name, place in places.items():
        if place.dtype in ("I8", "U8"):
            raise CheckpointError(
                f"tensor {name} is quantized to {place.dtype} and its scales were not saved; "
                f"merge the adapter into the unquantized base model and save that"
            )


def _replace_4bit(places: dict[str, TensorSource], state_name: str) -> None:
    weight = state_name[: state_name.index(".quant_state.")]
    raw = bytes(places.pop(state_name).read().to(torch.uint8).flatten().tolist())
    try:
        state = json.loads(raw)
        shape = tuple(int(length) for length in state["shape"])
        stored = int(state["blocksize"])
        parts = {
            part: places.pop(f"{weight}.{part}") for part in PARTS if f"{weight}.{part}" in places
        }
        places[weight] = From4Bit(places[weight], parts, state, shape)
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"tensor {state_name}: no state of a 4-bit weight; save the model again"
        ) from None
    if stored < 1 or not {"absmax", "quant_map"} <= set(parts):
        raise CheckpointError(f"tensor {weight}: parts of its 4-bit state are missing")
