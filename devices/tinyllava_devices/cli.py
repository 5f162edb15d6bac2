"""The command ``tinyllava-devices``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tinyllava_devices.detect import Machine, detect_machine

app = typer.Typer(
    name="tinyllava-devices",
    help="What a board can hold.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def main() -> None:
    """What a board can hold."""


@app.command()
def detect(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show this machine: board, processor, memory, NVIDIA GPUs."""
    machine = detect_machine()
    if as_json:
        typer.echo(json.dumps(asdict(machine), ensure_ascii=False))
    else:
        Console().print(_table(machine))


def _table(machine: Machine) -> Table:
    processor, memory = machine.processor, machine.memory
    table = Table(show_header=False, box=None)
    table.add_row("machine", machine.model or "not named by its firmware")
    table.add_row("processor", f"{processor.name or 'unnamed'} ({processor.architecture})")
    table.add_row("cores", str(processor.cores))
    table.add_row("features", " ".join(processor.features) or "none that matter here")
    table.add_row("memory", f"{memory.available_mib:.0f} of {memory.total_mib:.0f} MiB available")
    if memory.limited_by:
        table.add_row("limited by", memory.limited_by)
    for gpu in machine.gpus:
        free, total = gpu.memory_free_mib, gpu.memory_total_mib
        size = "shared memory" if total is None else f"{free} of {total} MiB free"
        table.add_row(
            "gpu", f"{gpu.name}, {size}, compute {gpu.compute_capability}, driver {gpu.driver}"
        )
    if not machine.gpus:
        table.add_row("gpu", "no NVIDIA GPU")
    return table
