"""What this machine is: board, processor, memory, GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinyllava_devices.gpu import Gpu, read_gpus
from tinyllava_devices.memory import Memory, read_memory
from tinyllava_devices.processor import Processor, read_processor

_MODEL_FILES = (
    "proc/device-tree/model",  # ARM boards; ends with a zero byte
    "sys/class/dmi/id/product_name",  # PCs and most virtual machines
)


@dataclass(frozen=True)
class Machine:
    """This machine as a model's host sees it; ``model`` is empty where nothing names it."""

    model: str
    processor: Processor
    memory: Memory
    gpus: tuple[Gpu, ...]


def detect_machine(root: Path = Path("/")) -> Machine:
    """Read what there is; nothing is started and nothing missing is an error."""
    return Machine(
        model=read_model(root),
        processor=read_processor(root),
        memory=read_memory(root),
        gpus=tuple(read_gpus()),
    )


def read_model(root: Path = Path("/")) -> str:
    """The board's or computer's name as its firmware gives it, or the empty string."""
    for name in _MODEL_FILES:
        try:
            raw = (root / name).read_bytes()
        except OSError:  # this kind of machine has no such file
            continue
        model = raw.rstrip(b"\0").decode("utf-8", errors="replace").strip()
        if model:
            return model
    return ""
