"""Counts of everything that was discarded, by cause, for the health message."""

from __future__ import annotations

import logging
import threading

logger = logging.getLogger(__name__)


class Drops:
    """Thread-safe counters. A cause is a short fixed word, never text from outside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def count(self, cause: str, detail: str = "", *, level: int = logging.WARNING) -> None:
        """Add one. Only the first of each cause is logged: a flood must not fill the disk."""
        with self._lock:
            first = cause not in self._counts
            self._counts[cause] = self._counts.get(cause, 0) + 1
        if first:
            text = f"{cause}: {detail}" if detail else cause
            logger.log(level, "first %s; counted from now on", text)

    def snapshot(self) -> dict[str, int]:
        """The counts so far, by cause in alphabetical order."""
        with self._lock:
            return dict(sorted(self._counts.items()))
