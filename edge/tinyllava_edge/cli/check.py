"""``tinyllava-edge check``: whether a configuration is right, before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tinyllava_edge.errors import TinyLlavaError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The gateway's YAML configuration.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the configuration's JSON Schema, read no FILE.")
    ] = False,
) -> None:
    """Check a configuration and the bundle it names, without connecting to anything."""
    from tinyllava_edge.config import GatewayConfig

    if schema:
        typer.echo(json.dumps(GatewayConfig.model_json_schema(), indent=2))
        return
    if file is None:
        raise typer.BadParameter("give a FILE, or --schema")
    try:
        facts = _facts(file)
    except TinyLlavaError as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "file": str(file), "error": str(error)}))
            raise typer.Exit(1) from None
        raise
    if as_json:
        typer.echo(json.dumps({"ok": True, "file": str(file), **facts}))
        return
    typer.echo(f"{file}: right")
    for name, value in facts.items():
        typer.echo(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")


def _facts(file: Path) -> dict[str, object]:
    """What the configuration comes to. Raises where it, its secrets or its bundle are wrong."""
    from tinyllava_edge.cli.arguments import verified_bundle
    from tinyllava_edge.config import load_config
    from tinyllava_edge.mqtt import read_password, tls_context
    from tinyllava_edge.topics import Topics

    config = load_config(file)
    read_password(config.mqtt)
    tls_context(config.mqtt.tls)
    bundle = verified_bundle(config.bundle)
    return {
        "broker": f"{config.mqtt.host}:{config.mqtt.port}",
        "bundle": bundle.manifest.name,
        "listens_to": list(Topics(config).subscriptions()),
        "answers_on": Topics(config).answer("<id>"),
    }
