"""What a run writes down as it goes: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE_NAME = "log.jsonl"


class Journal:
    """Appends to ``log.jsonl``; rows beyond a resumed step are dropped, so none stands twice."""

    def __init__(self, folder: Path, *, stage: int = 0, step: int = 0) -> None:
        self.path = folder / FILE_NAME
        kept = [
            row
            for row in read_journal(folder)
            if (row["stage_number"], row["step"]) <= (stage, step)
        ]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def write(self, **row: Any) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run, oldest first."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
