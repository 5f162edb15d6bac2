"""The health message: what the gateway does, how fast, and what it let go."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import Any

import psutil

KEPT_LATENCIES = 512


class Latencies:
    """The last answers' times from ask to answer, in milliseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[float] = deque(maxlen=KEPT_LATENCIES)

    def add(self, milliseconds: float) -> None:
        """Add one; the oldest goes where there are too many."""
        with self._lock:
            self._kept.append(milliseconds)

    def quantiles(self) -> dict[str, float | None]:
        """The nearest-rank p50 and p95, None before the first answer."""
        with self._lock:
            ordered = sorted(self._kept)
        if not ordered:
            return {"p50": None, "p95": None}
        last = len(ordered) - 1
        return {f"p{q}": round(ordered[round(last * q / 100)], 1) for q in (50, 95)}


def resident_mib() -> float:
    """The resident memory of this process."""
    rss: int = psutil.Process().memory_info().rss
    return round(rss / (1 << 20), 1)


def temperatures_c() -> dict[str, float]:
    """The hottest reading of each of the machine's sensors; empty where it has none."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return {}
    try:
        found: dict[str, Any] = read()
    except OSError:
        # Some boards list sensors that cannot be read while they sleep.
        return {}
    return {name: max(entry.current for entry in entries) for name, entries in found.items()}


def health_payload(facts: dict[str, Any]) -> bytes:
    """The facts, and this process's memory and the machine's temperatures, as JSON."""
    machine = {"rss_mib": resident_mib(), "temperatures_c": temperatures_c()}
    return json.dumps({**facts, **machine}, ensure_ascii=False).encode()
