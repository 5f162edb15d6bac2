"""TinyLLaVA_Factory's whole models: ``language_model.*``, ``vision_tower.*``, ``connector.*``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.factory import factory_checkpoint, is_factory, neutral_name
from tinyllava_export.checkpoints.weight_files import (
    INDEX_ENDING,
    MODEL_FILES,
    find_weight_files,
    index_files,
)

FORMAT = "factory-full"


def recognizes(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds the whole model in its own weight files."""
    names = (*MODEL_FILES, *(name + INDEX_ENDING for name in MODEL_FILES))
    return is_factory(config) and any((folder / name).is_file() for name in names)


def open_factory_full(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Understand the folder. Raises ``CheckpointError``."""
    files = find_weight_files(folder)
    places = index_files(files, neutral_name)
    return factory_checkpoint(folder, config, form=FORMAT, places=places, files=files)
