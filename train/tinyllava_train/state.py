"""A run's state on disk: enough to go on after a kill with the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FILE_NAME = "state.pt"


@dataclass(frozen=True)
class RunState:
    """Where a run is: ``step`` steps of stage number ``stage`` are done."""

    stage: int
    step: int
    model: dict[str, Any]
    extra: dict[str, Any]
    optimizer: list[dict[str, Any]]


def save_state(folder: Path, state: RunState) -> None:
    """Write the state, replacing the last one only when it is complete."""
    partial = folder / f"{FILE_NAME}.partial"
    torch.save(state.__dict__, partial)
    partial.replace(folder / FILE_NAME)


def load_state(folder: Path) -> RunState | None:
    """The state of a run that was begun in this folder, or None."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    return RunState(**torch.load(path, weights_only=True, map_location="cpu"))
