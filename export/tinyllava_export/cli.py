"""``tinyllava-export``: a checkpoint folder in, a verified bundle folder out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from tinyllava_edge.errors import BackendMissing, TinyLlavaError

if TYPE_CHECKING:
    from tinyllava_export.pipeline import ExportedBundle
    from tinyllava_export.plan import ExportPlan

# Libraries log errors that also come up as an exception; without a handler Python would print both.
logging.getLogger("tinyllava_edge").addHandler(logging.NullHandler())

progress = Console(stderr=True, highlight=False)


class _OneLineErrors(TyperCommand):
    """Turns the errors a user can mend into ``error: ...`` on standard error and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (TinyLlavaError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(cls=_OneLineErrors)
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that tinyllava-train wrote.")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write; must not exist.")],
    to: Annotated[str, typer.Option(help="Target: gguf.")] = "gguf",
    bits: Annotated[int, typer.Option(help="Bits per weight of the language model.")] = 4,
    quant: Annotated[
        str | None, typer.Option(help="llama.cpp file type, in place of --bits (Q4_K_M, IQ4_NL).")
    ] = None,
    vision_bits: Annotated[
        int, typer.Option(help="Bits per weight of the vision tower: 8, 16 or 32.")
    ] = 8,
    mmproj: Annotated[
        bool,
        typer.Option(help="Also write mmproj.gguf, where stock llama.cpp computes the same."),
    ] = True,
    name: Annotated[str | None, typer.Option(help="Bundle name; the folder's by default.")] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(min=0.0, help="Refuse a bundle whose mean KL to the source is above this."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to work with; one a core by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and estimate; write nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Export CHECKPOINT as a bundle that tinyllava-edge runs, and measure what it lost."""
    try:
        from tinyllava_export.pipeline import export_bundle
        from tinyllava_export.plan import ExportOptions, plan_export
    except ModuleNotFoundError as error:
        raise BackendMissing(
            f"{error.name} is not installed; pip install 'tinyllava-edge[export]'"
        ) from None
    options = ExportOptions(
        out=out,
        target=to,
        bits=bits,
        quant=quant,
        vision_bits=vision_bits,
        mmproj=mmproj,
        name=name,
        force=force,
        max_kl=max_kl,
        threads=threads,
    )
    if dry_run:
        _show_plan(plan_export(checkpoint, options), out, as_json=as_json)
    else:
        exported = export_bundle(checkpoint, options, progress.print)
        _show_bundle(exported, as_json=as_json)


def _show_plan(plan: ExportPlan, out: Path, *, as_json: bool) -> None:
    total = sum(file.bytes for file in plan.files)
    if as_json:
        files = [
            {"role": f.role, "file": f.file, "bytes": f.bytes, "quantization": f.quantization}
            for f in plan.files
        ]
        _print_json({"bundle": str(out), "bytes": total, "components": files, "dry_run": True})
        return
    rows = [(f.file, f.role, f.quantization, f.bytes) for f in plan.files]
    _print_files(f"{out} would hold about", rows, total)


def _show_bundle(exported: ExportedBundle, *, as_json: bool) -> None:
    components = exported.manifest.components
    total = sum(component.bytes for component in components)
    if as_json:
        _print_json(
            {
                "bundle": str(exported.folder),
                "bytes": total,
                "components": [component.model_dump(mode="json") for component in components],
                "fidelity": exported.manifest.fidelity,
            }
        )
        return
    rows = [(c.file, c.role, c.quantization, c.bytes) for c in components]
    _print_files(str(exported.folder), rows, total)
    _print_fidelity(exported.manifest.fidelity)


def _print_files(title: str, rows: list[tuple[str, str, str | None, int]], total: int) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("file")
    table.add_column("role")
    table.add_column("quantization")
    table.add_column("MiB", justify="right")
    for file, role, quantization, size in rows:
        table.add_row(file, role, quantization or "", _mib(size))
    table.add_section()
    table.add_row("all", "", "", _mib(total))
    Console(highlight=False).print(table)


def _print_fidelity(stages: dict[str, dict[str, float | str]]) -> None:
    table = Table(title="Against the float32 source", title_justify="left")
    table.add_column("stage")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for stage, measures in stages.items():
        for measure, value in measures.items():
            text = value if isinstance(value, str) else f"{value:g}"
            table.add_row(stage, measure.replace("_", " "), text)
    Console(highlight=False).print(table)


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.2f}"
