"""A pen that draws in unit coordinates inside an instrument's square on the panel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import matplotlib as mpl
from PIL import ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Point = tuple[float, float]

FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneralBol.ttf",
)
"""Fonts that travel with matplotlib, so that a seed gives the same picture on every machine."""


@functools.lru_cache(maxsize=256)
def _font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), pixels)


@dataclass(frozen=True)
class Pen:
    """Maps the unit square onto a square of ``side`` pixels at ``(left, top)`` of the canvas."""

    draw: ImageDraw.ImageDraw
    left: float
    top: float
    side: float
    rng: Random
    font_name: str

    def at(self, x: float, y: float) -> Point:
        """Unit coordinates to canvas pixels."""
        return (self.left + x * self.side, self.top + y * self.side)

    def _width(self, width: float) -> int:
        return max(1, round(width * self.side))

    def line(self, points: Sequence[Point], fill: Rgb, width: float) -> None:
        """A line through unit points, ``width`` in units."""
        self.draw.line(
            [self.at(*point) for point in points], fill, self._width(width), joint="curve"
        )

    def polygon(
        self, points: Sequence[Point], fill: Rgb, outline: Rgb | None = None, width: float = 0.02
    ) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(*point) for point in points], fill, outline, self._width(width))

    def disc(
        self,
        centre: Point,
        radius: float,
        fill: Rgb,
        outline: Rgb | None = None,
        width: float = 0.02,
    ) -> None:
        """A filled circle."""
        (x, y), r = centre, radius
        box = [self.at(x - r, y - r), self.at(x + r, y + r)]
        self.draw.ellipse(box, fill, outline, self._width(width))

    def box(
        self,
        corner: Point,
        far_corner: Point,
        fill: Rgb,
        outline: Rgb | None = None,
        width: float = 0.02,
        radius: float = 0.0,
    ) -> None:
        """A filled rectangle, with rounded corners where ``radius`` is given."""
        corners = [self.at(*corner), self.at(*far_corner)]
        pixels = radius * self.side
        self.draw.rounded_rectangle(corners, pixels, fill, outline, self._width(width))

    def text(self, centre: Point, text: str, fill: Rgb, height: float) -> None:
        """Text centred on a point; ``height`` is the font size in units."""
        font = _font(self.font_name, max(6, round(height * self.side)))
        self.draw.text(self.at(*centre), text, fill, font, anchor="mm")


def shade(rgb: Rgb, factor: float) -> Rgb:
    """A darker (< 1) or lighter (> 1) tone of a colour."""
    r, g, b = (min(255, max(0, round(channel * factor))) for channel in rgb)
    return (r, g, b)


def vary(rgb: Rgb, rng: Random, spread: int = 20) -> Rgb:
    """A colour near the given one."""
    r, g, b = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in rgb)
    return (r, g, b)


COLOURS: dict[str, Rgb] = {
    "red": (220, 40, 40),
    "green": (40, 190, 70),
    "yellow": (240, 205, 40),
    "blue": (50, 100, 230),
}
"""The colours that questions name."""
