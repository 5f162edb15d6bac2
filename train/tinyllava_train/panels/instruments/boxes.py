"""Boxes on a shelf, to be counted."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.instruments.pen import Pen, Rgb, shade, vary

MOST = 6
_CARDBOARD: tuple[Rgb, ...] = ((190, 140, 85), (165, 115, 70), (210, 170, 115))


@dataclass(frozen=True)
class Boxes:
    """``count`` boxes, 1 to 6."""

    count: int

    @classmethod
    def random(cls, rng: Random) -> Boxes:
        """One to six boxes."""
        return cls(rng.randint(1, MOST))

    def draw(self, pen: Pen) -> None:
        """Draw a rack of two shelves and the boxes in any of its six places."""
        rng = pen.rng
        rack = vary(rng.choice(((70, 80, 95), (40, 60, 110), (120, 120, 120))), rng)
        back = vary(rng.choice(((205, 205, 200), (60, 60, 62), (160, 170, 165))), rng, 10)
        pen.box((0.02, 0.04), (0.98, 0.96), back, rack, 0.04)
        places = rng.sample([(column, row) for column in range(3) for row in range(2)], self.count)
        for column, row in places:
            size = rng.uniform(0.2, 0.26)
            left = 0.07 + column * 0.3 + rng.uniform(0.0, 0.26 - size)
            floor = 0.47 + row * 0.45
            card = vary(rng.choice(_CARDBOARD), rng, 12)
            tall = size * rng.uniform(0.95, 1.3)
            pen.box((left, floor - tall), (left + size, floor), card, shade(card, 0.5), 0.02)
            middle = left + size / 2
            pen.line([(middle, floor - tall), (middle, floor)], shade(card, 1.25), 0.04)
        for y in (0.49, 0.94):
            pen.line([(0.02, y), (0.98, y)], rack, 0.05)
