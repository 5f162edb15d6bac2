"""An analog gauge: six marks over 270 degrees, a needle, a unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.instruments.pen import Pen, Point, Rgb, shade, vary

TICKS = 5
UNITS: dict[str, tuple[int, str]] = {
    "°C": (100, "temperature"),
    "%": (100, "humidity"),
    "bar": (10, "pressure"),
    "V": (10, "voltage"),
}
"""Unit -> full scale, and the sensor that measures the same thing."""

_CENTRE: Point = (0.5, 0.5)
_FACES: tuple[tuple[Rgb, Rgb], ...] = (
    ((245, 245, 240), (25, 25, 30)),
    ((225, 228, 215), (40, 40, 50)),
    ((30, 32, 38), (235, 235, 230)),
    ((50, 60, 80), (240, 240, 235)),
)
_NEEDLES: tuple[Rgb, ...] = ((205, 30, 30), (225, 95, 20), (20, 20, 20), (20, 70, 170))


@dataclass(frozen=True)
class Gauge:
    """The needle stands at ``tick`` (0..5), ``offset`` ticks beside it (well under half)."""

    tick: int
    unit: str
    offset: float = 0.0

    @property
    def full_scale(self) -> int:
        """The value at the last tick."""
        return UNITS[self.unit][0]

    @property
    def step(self) -> int:
        """Units per tick."""
        return self.full_scale // TICKS

    @property
    def value(self) -> int:
        """What a person reads: the value of the nearest tick."""
        return self.tick * self.step

    @property
    def sensor(self) -> str:
        """The name of the sensor that measures what this gauge shows."""
        return UNITS[self.unit][1]

    @property
    def reading(self) -> str:
        """Value and unit as an answer writes them."""
        return f"{self.value} {self.unit}"

    @classmethod
    def random(cls, rng: Random) -> Gauge:
        """Any tick, any unit."""
        return cls(rng.randint(0, TICKS), rng.choice(list(UNITS)), rng.uniform(-0.15, 0.15))

    def draw(self, pen: Pen) -> None:
        """Draw rim, ticks, unit, end labels and needle."""
        rng = pen.rng
        face, ink = rng.choice(_FACES)
        rim = vary(rng.choice(((90, 90, 95), (170, 170, 170), (60, 50, 40))), rng)
        pen.disc(_CENTRE, 0.49, rim)
        pen.disc(_CENTRE, 0.44, vary(face, rng, 8))
        for half in range(2 * TICKS + 1):
            inner = 0.33 if half % 2 == 0 else 0.38
            pen.line([_on_dial(half / 2, inner), _on_dial(half / 2, 0.43)], ink, 0.025)
        pen.text((0.5, 0.7), self.unit, ink, 0.26)
        pen.text((0.31, 0.87), "0", ink, 0.1)
        pen.text((0.69, 0.87), str(self.full_scale), ink, 0.1)
        dark_face = sum(face) < 300
        needles = _NEEDLES[:2] if dark_face else _NEEDLES
        needle = vary(rng.choice(needles), rng, 12)
        at = self.tick + self.offset
        tail = _on_dial(at, -0.1)
        pen.line([tail, _on_dial(at, 0.4)], needle, rng.uniform(0.035, 0.055))
        pen.disc(_CENTRE, 0.06, shade(needle, 0.7))


def _on_dial(tick: float, radius: float) -> Point:
    angle = math.radians(225 - 270 * tick / TICKS)
    return (0.5 + radius * math.cos(angle), 0.5 - radius * math.sin(angle))
