"""LoRA adapters as peft saves them, merged into the tensors they adapt in float32."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyllava_export.checkpoints.json_file import read_json_object
from tinyllava_export.checkpoints.tensors import TensorSource
from tinyllava_export.checkpoints.weight_files import (
    ADAPTER_FILES,
    find_weight_files,
    index_files,
)
from tinyllava_export.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
# peft writes "lora_A.weight"; a state dict saved by hand has the adapter's name in between.
PART = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")
SAVED_WHOLE = ".modules_to_save."
NOT_SUPPORTED = ("use_dora", "lora_bias", "layer_replication", "megatron_config")


@dataclass(frozen=True)
class LoraMerged:
    """``base + up @ down * scale`` in float32; ``transposed`` for layers stored ``[in, out]``."""

    base: TensorSource
    down: TensorSource
    up: TensorSource
    scale: float
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As the base."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """A sum of products needs float32."""
        return "F32"

    def read(self) -> torch.Tensor:
        """Compute it. Raises ``CheckpointError`` if a file is damaged."""
        change = (self.up.read().float() @ self.down.read().float()) * self.scale
        return self.base.read().float() + (change.T if self.transposed else change)


@dataclass(frozen=True)
class Adapter:
    """An adapter's files and settings, and its tensors by their names there."""

    files: list[Path]
    settings: dict[str, Any]
    tensors: dict[str, TensorSource]


def has_adapter(folder: Path) -> bool:
    """Whether the folder holds one."""
    return (folder / ADAPTER_CONFIG).is_file()


def read_adapter(folder: Path) -> Adapter:
    """List the adapter. Raises ``CheckpointError`` for kinds that are not plain LoRA."""
    path = folder / ADAPTER_CONFIG
    settings = read_json_object(path)
    if settings.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(
            f"{path}: peft_type {settings['peft_type']!r:.40} is not supported; supported: LORA"
        )
    for name in NOT_SUPPORTED:
        if settings.get(name):
            raise CheckpointError(f"{path}: {name} is set, which is not supported; merge it first")
    files = find_weight_files(folder, ADAPTER_FILES)
    return Adapter([*files, path], settings, index_files(files, lambda key: key))


def merge_adapter(
    places: dict[str, TensorSource], adapter: Adapter, neutral_name: Callable[[str], str | None]
) -> None:
    """Put merged tensors in place of those that the adapter adapts, and those that it replaces.

    ``neutral_name`` translates names of the whole model. Raises ``CheckpointError`` for a part
    that has no counterpart, does not fit, or is of another kind.
    """
    halves: dict[str, dict[str, TensorSource]] = {}
    for key, tensor in adapter.tensors.items():
        name = key.removeprefix(PREFIX)
        if match := PART.match(name):
            halves.setdefault(match["module"], {})[match["side"]] = tensor
        elif "lora_" in name:
            raise CheckpointError(f"adapter tensor {key}: of a kind that is not supported")
        else:
            plain = name.replace(SAVED_WHOLE, ".").replace(".base_layer.", ".")
            if (target := neutral_name(plain)) is not None:
                places[target] = tensor
    for module, sides in halves.items():
        target = neutral_name(f"{module}.weight") or ""
        places[target] = _merged(places.get(target), module, sides, adapter.settings)


def _merged(
    base: TensorSource | None,
    module: str,
    sides: dict[str, TensorSource],
    settings: dict[str, Any],
) -> LoraMerged:
    if base is None:
        raise CheckpointError(f"adapter of {module}: the model has no such layer")
    if set(sides) != {"A", "B"}:
        raise CheckpointError(f"adapter of {module}: lora_A or lora_B is missing; save it again")
    down, up = sides["A"], sides["B"]
    transposed = bool(settings.get("fan_in_fan_out"))
    if len(down.shape) != 2 or len(up.shape) != 2:
        raise CheckpointError(f"adapter of {module}: only linear layers are supported")
    whole = (up.shape[0], down.shape[1])
    if up.shape[1] != down.shape[0] or (whole[::-1] if transposed else whole) != base.shape:
        raise CheckpointError(
            f"adapter of {module}: shapes {list(up.shape)} and {list(down.shape)} do not make "
            f"{list(base.shape)}; it is of another model"
        )
    return LoraMerged(base, down, up, _scale(module, settings), transposed)


def _scale(module: str, settings: dict[str, Any]) -> float:
    """Alpha / r, each by the module's own pattern where there is one."""
    rank = _by_pattern(module, settings.get("rank_pattern"), settings.get("r"))
    alpha = _by_pattern(module, settings.get("alpha_pattern"), settings.get("lora_alpha"))
    if not _is_number(rank) or not _is_number(alpha) or rank <= 0:
        raise CheckpointError(
            f"{ADAPTER_CONFIG}: r is {rank!r:.40} and lora_alpha {alpha!r:.40}; both must be "
            f"numbers"
        )
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))


def _by_pattern(module: str, patterns: object, default: Any) -> Any:
    if isinstance(patterns, dict):
        for pattern, value in patterns.items():
            if module == pattern or module.endswith(f".{pattern}"):
                return value
    return default


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
