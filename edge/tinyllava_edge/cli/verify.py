"""``tinyllava-edge verify``: whether a bundle's files are the ones its manifest lists."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from tinyllava_edge.bundle import open_bundle, verify_bundle
from tinyllava_edge.cli.arguments import bundle_folder

if TYPE_CHECKING:
    from tinyllava_edge.bundle import Bundle


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, or the word demo.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check every file of a bundle against its manifest: path, size, sha256."""
    opened = open_bundle(bundle_folder(bundle))
    _verify_visibly(opened)
    components = opened.manifest.components
    if as_json:
        files = [c.model_dump(include={"role", "file", "bytes", "sha256"}) for c in components]
        typer.echo(json.dumps({"ok": True, "name": opened.manifest.name, "files": files}))
    else:
        mib = sum(component.bytes for component in components) / 2**20
        typer.echo(f"{opened.manifest.name}: {len(components)} files, {mib:.1f} MiB, all as listed")


def _verify_visibly(bundle: Bundle) -> None:
    """With a progress bar where somebody watches, silently elsewhere."""
    columns = (TextColumn("verify"), BarColumn(), DownloadColumn(binary_units=True))
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("verify", total=None)
        verify_bundle(bundle, lambda done, all_: progress.update(task, completed=done, total=all_))
