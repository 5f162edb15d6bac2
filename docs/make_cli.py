"""Write docs/cli.md from the four commands themselves.

python docs/make_cli.py
"""

from __future__ import annotations

import inspect
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

PAGE = Path(__file__).resolve().parent / "cli.md"
ORDER = ("tinyllava-edge", "tinyllava-train", "tinyllava-export", "tinyllava-devices")
HEAD = """# Commands

Written by `make docs` from the commands themselves; `COMMAND --help` says the same.

`--json` prints one JSON object on standard output; progress and logs go to standard error.
Exit 0: done. Exit 1: what went wrong, in one line with the next step. Exit 2: wrong usage.
"""


def page() -> str:
    """The whole of docs/cli.md for the installed commands."""
    scripts = {
        script.name: script
        for script in distribution("tinyllava-edge").entry_points
        if script.group == "console_scripts"
    }
    parts = [HEAD]
    for name in ORDER:
        # typer.main gives click objects, whose classes typer does not promise to keep.
        command: Any = get_command(scripts.pop(name).load())
        parts += _sections(name, command, level=2)
    if scripts:
        raise ValueError(f"commands without a place in ORDER: {', '.join(scripts)}")
    return "\n".join(parts)


def _sections(name: str, command: Any, *, level: int) -> list[str]:
    context = typer.Context(command, info_name=name)
    children: dict[str, Any] = getattr(command, "commands", {})
    parts = [f"{'#' * level} {name}\n"]
    if command.help:
        parts.append(inspect.cleandoc(command.help) + "\n")
    if not children:
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        parts.append(f"```\n{usage}\n```\n")
    records = [param.get_help_record(context) for param in command.params]
    rows = [f"| `{names}` | {_cell(meaning)} |" for names, meaning in filter(None, records)]
    if rows:
        parts.append("\n".join(["| | |", "| --- | --- |", *rows]) + "\n")
    for child in sorted(children):
        parts += _sections(f"{name} {child}", children[child], level=level + 1)
    return parts


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Rewrite docs/cli.md."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
