"""TinyLLaVA_Factory's split models: a folder each for language model, tower and connector."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.factory import factory_checkpoint, is_factory, neutral_name
from tinyllava_export.checkpoints.tensors import TensorSource
from tinyllava_export.checkpoints.weight_files import find_weight_files, index_files

FORMAT = "factory-split"
# Each folder's keys lack what stands before them in the whole model.
PARTS = {
    "language_model": "language_model.",
    "vision_tower": "vision_tower._vision_tower.",
    "connector": "connector.",
}
BASE_LAYER = ".base_layer."


def recognizes(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds the model in parts."""
    return is_factory(config) and (folder / "language_model").is_dir()


def open_factory_split(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Understand the folder. Raises ``CheckpointError``."""
    files, places = index_parts(folder)
    return factory_checkpoint(folder, config, form=FORMAT, places=places, files=files)


def index_parts(folder: Path) -> tuple[list[Path], dict[str, TensorSource]]:
    """The weight files of the three folders and their tensors by neutral name.

    Names of layers that an adapter wraps (``.base_layer``) become those of plain layers. A
    missing connector folder is one without weights.
    """
    files: list[Path] = []
    places: dict[str, TensorSource] = {}
    for part, prefix in PARTS.items():
        if part == "connector" and not (folder / part).is_dir():
            continue
        found = find_weight_files(folder / part)
        files += found
        places |= index_files(found, partial(_neutral, prefix))
    return files, places


def _neutral(prefix: str, key: str) -> str | None:
    return neutral_name(prefix + key.replace(BASE_LAYER, "."))
