"""Which format a folder has: told from its configuration and files, never from its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyllava_export.checkpoints import (
    factory_full,
    factory_lora,
    factory_split,
    legacy,
    transformers_llava,
)
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.factory import CONFIG_FILE, is_factory
from tinyllava_export.checkpoints.json_file import read_json_object
from tinyllava_export.errors import CheckpointError

MODEL_TYPES = "llava (LlavaForConditionalGeneration), tinyllava (TinyLLaVA_Factory), tiny_llava*"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint folder of any supported format.

    Reads configuration, semantics and the index of tensors, and hashes the files; no tensor is
    loaded. Raises ``CheckpointError`` in one line.
    """
    config = _read_config(folder)
    try:
        return _open(folder, config)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{folder}: {field} cannot be derived ({first['msg']}); correct config.json"
        ) from None


def _open(folder: Path, config: dict[str, Any]) -> Checkpoint:
    if transformers_llava.recognizes(config):
        return transformers_llava.open_transformers_llava(folder, config)
    if legacy.recognizes(config):
        return legacy.open_legacy(folder, config)
    if factory_full.recognizes(folder, config):
        return factory_full.open_factory_full(folder, config)
    if factory_lora.recognizes(folder, config):
        return factory_lora.open_factory_lora(folder, config)
    if factory_split.recognizes(folder, config):
        return factory_split.open_factory_split(folder, config)
    if is_factory(config):
        raise CheckpointError(
            f"{folder}: neither weights nor a folder language_model; copy the whole checkpoint"
        )
    raise CheckpointError(
        f"{folder}: model_type {config.get('model_type')!r:.60} is not supported; supported: "
        f"{MODEL_TYPES}"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise CheckpointError(f"{folder}: does not exist; give the folder of a checkpoint")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: not a folder; give the folder of a checkpoint")
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; is this a checkpoint?")
    return read_json_object(folder / CONFIG_FILE)
