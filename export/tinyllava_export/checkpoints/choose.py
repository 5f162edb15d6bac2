"""Which format a folder has: told from its configuration, never from its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinyllava_export.checkpoints import transformers_llava
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError

CONFIG_FILE = "config.json"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint folder of any supported format.

    Reads configuration, semantics and the index of tensors, and hashes the files; no tensor is
    loaded. Raises ``CheckpointError`` in one line.
    """
    config = _read_config(folder)
    if transformers_llava.recognizes(config):
        return transformers_llava.open_transformers_llava(folder, config)
    raise CheckpointError(
        f"{folder}: model_type {config.get('model_type')!r} is not supported; supported: "
        f"{transformers_llava.MODEL_TYPE} (LlavaForConditionalGeneration)"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise CheckpointError(f"{folder}: does not exist; give the folder of a checkpoint")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: not a folder; give the folder of a checkpoint")
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; is this a checkpoint?") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); save it again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object; save the checkpoint again")
    return config
