"""TinyLLaVA_Factory's LoRA and QLoRA models: a split model and an adapter beside it.

The language model's tensors have ``.base_layer`` in their names where the adapter wraps them;
after QLoRA they are quantized. Adapter and base become one in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllava_export.checkpoints.adapters import has_adapter, merge_adapter, read_adapter
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.dequantized import dequantize
from tinyllava_export.checkpoints.factory import factory_checkpoint, is_factory, neutral_name
from tinyllava_export.checkpoints.factory_split import index_parts

FORMAT = "factory-lora"


def recognizes(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds a model in parts with an adapter."""
    return is_factory(config) and has_adapter(folder) and (folder / "language_model").is_dir()


def open_factory_lora(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Understand the folder. Raises ``CheckpointError``."""
    files, places = index_parts(folder)
    dequantize(places)
    adapter = read_adapter(folder)
    merge_adapter(places, adapter, neutral_name)
    files = [*files, *adapter.files]
    return factory_checkpoint(folder, config, form=FORMAT, places=places, files=files)
