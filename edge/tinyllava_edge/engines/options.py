"""What a user may choose about an engine; everything else follows from the bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass

MAX_PARALLEL = 64


@dataclass(frozen=True)
class EngineOptions:
    """Settings of an engine.

    ``threads`` None takes the cores this process may use. ``context_tokens`` None takes the
    bundle's own; it bounds both one prompt with its answer and all prompts answered together.
    ``parallel`` is how many questions decode in one batch, ``gpu_layers`` -1 means all.
    ``sight_cache_mib`` bounds the kept image embeddings; the newest is kept in any case.
    Raises ``ValueError`` for a number out of its bounds.
    """

    threads: int | None = None
    gpu_layers: int = 0
    context_tokens: int | None = None
    parallel: int = 8
    sight_cache_mib: float = 16.0
    vision_providers: tuple[str, ...] = ("CPUExecutionProvider",)
    check_memory: bool = True

    def __post_init__(self) -> None:
        for name in ("threads", "context_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give at least 1, or None")
        if not 1 <= self.parallel <= MAX_PARALLEL:
            raise ValueError(f"parallel is {self.parallel}; give 1 to {MAX_PARALLEL}")

    @property
    def thread_count(self) -> int:
        """The number of threads to use: as set, or the cores of this process's affinity."""
        if self.threads is not None:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
