"""The command ``tinyllava-edge``: one file a subcommand, errors in one line."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from tinyllava_edge.cli import ask, check, demo, run, verify
from tinyllava_edge.errors import TinyLlavaError

__all__ = ["app"]


class _OneLineErrors(TyperGroup):
    """Turns the errors a user can mend into ``error: ...`` on standard error and exit code 1."""

    def invoke(self, ctx: Any) -> Any:  # newer typers bring a click of their own
        try:
            return super().invoke(ctx)
        except TinyLlavaError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="tinyllava-edge",
    help="Run TinyLLaVA bundles and answer questions about pictures.",
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Run TinyLLaVA bundles and answer questions about pictures."""


for command in (run, check, ask, verify, demo):
    command.register(app)
