"""What can be open or closed: a valve in a pipe, a door in a wall."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.instruments.pen import Pen, shade, vary


@dataclass(frozen=True)
class Valve:
    """A lever valve: open when its lever lies along the pipe, closed when across."""

    open: bool

    @classmethod
    def random(cls, rng: Random) -> Valve:
        """Open or closed."""
        return cls(rng.random() < 0.5)

    def draw(self, pen: Pen) -> None:
        """Draw the pipe with flanges, the body and the lever."""
        rng = pen.rng
        pipe = vary(rng.choice(((140, 145, 150), (95, 110, 130), (170, 120, 80))), rng)
        lever = vary(rng.choice(((210, 35, 35), (235, 190, 30), (40, 80, 200))), rng, 15)
        pen.box((0.0, 0.42), (1.0, 0.64), pipe, shade(pipe, 0.6))
        for x in (0.18, 0.72):
            pen.box((x, 0.36), (x + 0.1, 0.7), shade(pipe, 0.8), shade(pipe, 0.5))
        pen.disc((0.5, 0.53), 0.17, shade(pipe, 0.9), shade(pipe, 0.5))
        tilt = rng.uniform(-0.03, 0.03)
        far = (0.93, 0.53 + tilt) if self.open else (0.5 + tilt, 0.06)
        pen.line([(0.5, 0.53), far], shade(lever, 0.5), 0.13)
        pen.line([(0.5, 0.53), far], lever, 0.09)
        pen.disc((0.5, 0.53), 0.07, shade(lever, 0.6))


@dataclass(frozen=True)
class Door:
    """A door leaf: closed it fills its frame, open it stands aside of a dark opening."""

    open: bool

    @classmethod
    def random(cls, rng: Random) -> Door:
        """Open or closed."""
        return cls(rng.random() < 0.5)

    def draw(self, pen: Pen) -> None:
        """Draw the frame, then the leaf."""
        rng = pen.rng
        leaf = vary(rng.choice(((150, 100, 60), (170, 175, 180), (70, 110, 90))), rng)
        frame = vary(rng.choice(((60, 60, 65), (225, 225, 220))), rng, 10)
        pen.box((0.18, 0.04), (0.8, 0.98), frame)
        pen.box((0.24, 0.1), (0.74, 0.98), (18, 18, 22))
        if self.open:
            reach = rng.uniform(0.36, 0.44)
            corners = [(0.24, 0.1), (reach, 0.2), (reach, 0.99), (0.24, 0.98)]
            pen.polygon(corners, leaf, shade(leaf, 0.6))
            pen.disc((reach - 0.04, 0.6), 0.025, (230, 210, 90))
        else:
            pen.box((0.25, 0.11), (0.73, 0.98), leaf, shade(leaf, 0.6))
            pen.box((0.33, 0.2), (0.65, 0.48), shade(leaf, 0.85), shade(leaf, 0.7))
            pen.disc((0.66, 0.58), 0.04, (230, 210, 90))
