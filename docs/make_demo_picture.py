"""Draw docs/demo.png: the demo's pictures, and under them what it printed on a terminal.

    python docs/make_demo_picture.py

Runs ``tinyllava-edge demo`` in a pseudo-terminal, so the colours are the ones a person sees.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.text import Text

HOUSE = Path(__file__).resolve().parent.parent
PICTURES = HOUSE / "edge" / "tinyllava_edge" / "demo" / "pictures"
COLUMNS, FONT_PX, LINE_PX, MARGIN = 128, 15, 20, 16
THUMBNAIL = 150
PAPER, INK = (24, 26, 31), (214, 216, 220)


def recorded_demo() -> str:
    """What the demo writes to a terminal, escape codes and all."""
    command = shutil.which("tinyllava-edge") or str(Path(sys.executable).parent / "tinyllava-edge")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    # The command is found on this machine's path, nothing of it comes from outside.
    with subprocess.Popen(  # noqa: S603 - our own command with fixed arguments
        [command, "demo"], stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ):
        os.close(theirs)
        chunks = []
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def draw(ansi: str) -> Image.Image:
    """The picture of a terminal with this text in it, under the demo's pictures."""
    lines = Text.from_ansi(ansi).wrap(Console(width=COLUMNS), COLUMNS)
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    plain = ImageFont.truetype(str(fonts / "DejaVuSansMono.ttf"), FONT_PX)
    bold = ImageFont.truetype(str(fonts / "DejaVuSansMono-Bold.ttf"), FONT_PX)
    advance = plain.getlength("M")
    width = round(COLUMNS * advance) + 2 * MARGIN
    top = THUMBNAIL + 2 * MARGIN
    sheet = Image.new("RGB", (width, top + len(lines) * LINE_PX + MARGIN), PAPER)
    _place_pictures(sheet, width)
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        for column, (letter, colour, strong) in enumerate(_letters(line)):
            at = (MARGIN + column * advance, top + row * LINE_PX)
            pen.text(at, letter, colour, bold if strong else plain)
    return sheet


def _place_pictures(sheet: Image.Image, width: int) -> None:
    paths = sorted(PICTURES.glob("*.jpg"))
    pitch = (width - 2 * MARGIN) / len(paths)
    for place, path in enumerate(paths):
        with Image.open(path) as opened:
            opened.thumbnail((pitch - 6, THUMBNAIL))
            sheet.paste(opened, (round(MARGIN + place * pitch), MARGIN))


def _letters(line: Text) -> list[tuple[str, tuple[int, int, int], bool]]:
    """Each letter with its colour and weight."""
    console = Console()
    found = []
    for offset, letter in enumerate(line.plain):
        style = line.get_style_at_offset(console, offset)
        colour = INK if style.color is None else tuple(style.color.get_truecolor())
        if style.dim:
            colour = tuple(channel * 2 // 3 for channel in colour)
        found.append((letter, (colour[0], colour[1], colour[2]), bool(style.bold)))
    return found


if __name__ == "__main__":
    draw(recorded_demo()).save(HOUSE / "docs" / "demo.png", optimize=True)
