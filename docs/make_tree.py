"""Write the tree in README.md: one line a source file, from the first line of its docstring.

    python docs/make_tree.py

The block is the fenced one that holds ``edge/tinyllava_edge/``; README.md must have it already.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
ROOMS = (
    "devices/tinyllava_devices",
    "edge/tinyllava_edge",
    "train/tinyllava_train",
    "export/tinyllava_export",
)
OTHER_FOLDERS = {
    "tests": "mirrors the four packages; tests/e2e goes the whole way",
    "benchmarks": "what is measured, and how",
    "docs": "architecture, commands, the MQTT contract",
}
_BLOCK = re.compile(
    r"^```text\n(?=(?:(?!```)[^\n]*\n)*?edge/tinyllava_edge/)(.*?)^```$", re.MULTILINE | re.DOTALL
)
_NAME_WIDTH = 26


def tree(house: Path = HOUSE) -> str:
    """The tree as it is on the disk, one line a folder or a source file."""
    lines: list[str] = []
    for room in ROOMS:
        lines += _folder(house / room, label=room, depth=0)
    lines += [_line(f"{name}/", text, 0) for name, text in OTHER_FOLDERS.items()]
    return "".join(f"{line}\n" for line in lines)


def tree_in(readme: str) -> str:
    """The tree that a README holds. Raises ``ValueError`` where it holds none."""
    match = _BLOCK.search(readme)
    if match is None:
        raise ValueError("README.md has no ```text block with the line edge/tinyllava_edge/")
    return match[1]


def with_tree(readme: str, text: str) -> str:
    """The same README with another tree. Raises ``ValueError`` where it holds none."""
    tree_in(readme)
    return _BLOCK.sub(lambda _: f"```text\n{text}```", readme, count=1)


def _folder(folder: Path, *, label: str, depth: int) -> list[str]:
    lines = [_line(f"{label}/", _promise(folder / "__init__.py"), depth)]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and any(path.rglob("*.py")):
            lines += _folder(path, label=path.name, depth=depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append(_line(path.name, _promise(path), depth + 1))
    return lines


def _promise(path: Path) -> str:
    """The docstring's first sentence in one line, or the empty string."""
    if not path.is_file():
        return ""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split()).replace("``", "")
    return paragraph.split(". ")[0].rstrip(".")


def _line(name: str, text: str, depth: int) -> str:
    return f"{'  ' * depth}{name}".ljust(_NAME_WIDTH) + (f"  {text}" if text else "").rstrip()


def main() -> None:
    """Rewrite the block in README.md."""
    readme = HOUSE / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(with_tree(text, tree()), encoding="utf-8")


if __name__ == "__main__":
    main()
