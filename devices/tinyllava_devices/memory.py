"""How much memory this machine has, and how much of it this process may use.

A container sees the whole machine's memory in ``/proc/meminfo`` while its control group allows
less, and the kernel kills whoever believes the former. Both generations of control groups are
read, at every level from the process's own group up to the root.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from tinyllava_devices.footprint import MIB


@dataclass(frozen=True)
class Memory:
    """Memory of this machine within the limits set on this process, in MiB.

    ``available_mib`` can be had without swapping; ``limited_by`` is the file of the control
    group that sets ``total_mib``, or None where the machine itself does.
    """

    total_mib: float
    available_mib: float
    limited_by: str | None = None


@dataclass(frozen=True)
class GroupLimit:
    """A control group's limit and what is left under it, in bytes; ``source`` is its file."""

    limit: int
    left: int
    source: str


@dataclass(frozen=True)
class _Generation:
    """Where one generation of control groups keeps its figures."""

    mount: str
    limit: str
    usage: str
    reclaimable: str


_V2 = _Generation("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = _Generation(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)


def read_memory(root: Path = Path("/")) -> Memory:
    """Total and available memory, the smaller of what the machine and its control groups say.

    ``root`` is where ``proc`` and ``sys`` of the control groups are looked up; the machine's own
    figures come from psutil.
    """
    machine = psutil.virtual_memory()
    return bounded_memory(machine.total, machine.available, group_limits(root))


def bounded_memory(total: int, available: int, limits: list[GroupLimit]) -> Memory:
    """Narrow the machine's figures (bytes) to the tightest of the limits (bytes), in MiB.

    A limit above the machine's own memory is none: control groups of the first generation
    write "unlimited" as a very large number.
    """
    source = None
    for group in limits:
        if group.limit < total:
            total, source = group.limit, group.source
        available = min(available, group.left)
    return Memory(total / MIB, min(available, total) / MIB, source)


def group_limits(root: Path = Path("/")) -> list[GroupLimit]:
    """The limits on this process in each control group from its own to the root; may be empty."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no control groups: not Linux, or a kernel without them
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            found += _limits_along(root, _V2, path)
        elif "memory" in controllers.split(","):
            found += _limits_along(root, _V1, path)
    return found


def _limits_along(root: Path, generation: _Generation, path: str) -> list[GroupLimit]:
    # Inside a container the path may be the host's, which does not exist here, while the mount
    # is the container's own group: the walk up to the mount itself finds it either way.
    group = PurePosixPath("/") / path
    folders = [root / generation.mount / p.relative_to("/") for p in (group, *group.parents)]
    limits = (_read_limit(folder, generation) for folder in folders if ".." not in folder.parts)
    return [limit for limit in limits if limit is not None]


def _read_limit(folder: Path, generation: _Generation) -> GroupLimit | None:
    try:
        limit = (folder / generation.limit).read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((folder / generation.usage).read_text(encoding="ascii"))
        reclaimable = _stat(folder / "memory.stat", generation.reclaimable)
        left = max(0, int(limit) - max(0, used - reclaimable))
        return GroupLimit(int(limit), left, str(folder / generation.limit))
    except (OSError, ValueError):  # no such group, or a kernel that writes it differently
        return None


def _stat(path: Path, key: str) -> int:
    """One figure of ``memory.stat``; page cache counts as used though it is given back on need."""
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
