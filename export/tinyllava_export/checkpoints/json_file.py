"""JSON objects of a checkpoint folder, refused in one line where they are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinyllava_export.errors import CheckpointError


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in ``path``. Raises ``CheckpointError`` where it is missing or something else."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; copy the whole checkpoint") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); save it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; save it again")
    return content


def read_optional_json(path: Path) -> dict[str, Any]:
    """The object in ``path``, empty where there is no such file."""
    return read_json_object(path) if path.is_file() else {}
