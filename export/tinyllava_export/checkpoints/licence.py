"""The licence that a model card states in its front matter."""

from __future__ import annotations

from pathlib import Path

import yaml

from tinyllava_export.checkpoints.contract import CARD_FILE

UNKNOWN = "unknown"


def read_licence(folder: Path) -> str:
    """``license:`` of the card's YAML front matter, or ``unknown``; a licence is never guessed."""
    path = folder / CARD_FILE
    if not path.is_file():
        return UNKNOWN
    parts = path.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return UNKNOWN
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return UNKNOWN
    value = front.get("license") if isinstance(front, dict) else None
    return value if isinstance(value, str) and value else UNKNOWN
