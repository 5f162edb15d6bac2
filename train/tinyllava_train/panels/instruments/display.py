"""A seven-segment display with one or two digits."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.instruments.pen import Pen, Point, Rgb, shade, vary

_SEGMENTS: dict[str, tuple[Point, Point]] = {
    "a": ((0, 0), (1, 0)),
    "b": ((1, 0), (1, 1)),
    "c": ((1, 1), (1, 2)),
    "d": ((0, 2), (1, 2)),
    "e": ((0, 1), (0, 2)),
    "f": ((0, 0), (0, 1)),
    "g": ((0, 1), (1, 1)),
}
_LIT = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
_GLOWS: tuple[Rgb, ...] = ((255, 60, 50), (70, 255, 110), (255, 180, 40), (90, 220, 255))


@dataclass(frozen=True)
class Display:
    """Shows ``number`` (0..99) without a leading zero."""

    number: int

    @classmethod
    def random(cls, rng: Random) -> Display:
        """Any number; a single digit in one of ten."""
        return cls(rng.randint(0, 99))

    def draw(self, pen: Pen) -> None:
        """Draw the dark window and the segments, unlit ones faint."""
        rng = pen.rng
        window = vary((22, 22, 24), rng, 10)
        frame = vary(rng.choice(((60, 60, 60), (150, 150, 150), (110, 80, 50))), rng)
        pen.box((0.02, 0.14), (0.98, 0.86), frame, radius=0.05)
        pen.box((0.08, 0.2), (0.92, 0.8), window)
        glow = vary(rng.choice(_GLOWS), rng, 15)
        ghost = shade(glow, 0.16)
        text = f"{self.number:>2}"
        slant = rng.uniform(0.0, 0.05)
        for place, digit in enumerate(text):
            lit = "" if digit == " " else _LIT[int(digit)]
            for name, ends in _SEGMENTS.items():
                points = [_on_window(place, end, slant) for end in ends]
                pen.line(points, glow if name in lit else ghost, 0.06)


def _on_window(place: int, end: Point, slant: float) -> Point:
    x, y = end
    return (0.2 + place * 0.37 + x * 0.22 + (1 - y) * slant, 0.29 + y * 0.21)
