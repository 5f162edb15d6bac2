"""The processor: its name, how many cores this process may use, and what speeds models up."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

SPEED_FLAGS = (
    # x86-64, as /proc/cpuinfo writes them.
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    # aarch64: NEON, its float16 and int8 dot products, int8 matrix products, scalable vectors.
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that llama.cpp or ONNX Runtime has kernels for."""


@dataclass(frozen=True)
class Processor:
    """A machine's processor; ``cores`` counts those that this process may be scheduled on."""

    name: str
    architecture: str
    cores: int
    features: tuple[str, ...]


def read_processor(root: Path = Path("/")) -> Processor:
    """The processor as ``proc/cpuinfo`` under ``root`` describes it; its name may be empty."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: the architecture and the cores are known all the same
        text = ""
    name, features = parse_cpuinfo(text)
    return Processor(
        name=name or platform.processor(),
        architecture=platform.machine(),
        cores=_usable_cores(),
        features=features,
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """The first processor's name (empty on most ARM boards) and its flags among SPEED_FLAGS."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", ""), tuple(flag for flag in SPEED_FLAGS if flag in flags)


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover (only Linux tells)
        return os.cpu_count() or 1
