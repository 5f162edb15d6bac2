"""NVIDIA graphics processors, asked for through the driver's own command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

_FIELDS = ("name", "memory.total", "memory.free", "driver_version", "compute_cap")
_TIMEOUT_S = 10.0  # a driver that is loading takes seconds; one that hangs must not take more


@dataclass(frozen=True)
class Gpu:
    """One graphics processor; memory in MiB, None where it shares the machine's (Jetson)."""

    name: str
    memory_total_mib: int | None
    memory_free_mib: int | None
    driver: str
    compute_capability: str


def read_gpus(command: str = "nvidia-smi") -> list[Gpu]:
    """The NVIDIA GPUs that the driver reports; empty without a driver or with a broken one."""
    path = shutil.which(command)
    if path is None:
        return []
    query = [path, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(  # noqa: S603 - the driver's command with fixed arguments
            query, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(result.stdout) if result.returncode == 0 else []


def parse_gpus(csv: str) -> list[Gpu]:
    """Read nvidia-smi's CSV, one GPU a line; a line of another form is passed over."""
    gpus = []
    for line in csv.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(_FIELDS):
            continue
        name, total, free, driver, capability = values
        gpus.append(Gpu(name, _mib(total), _mib(free), driver, capability))
    return gpus


def _mib(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
