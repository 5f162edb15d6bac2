"""A row of status LEDs, numbered from the left."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.instruments.pen import COLOURS, Pen, shade, vary

STATES = (*COLOURS, "off")


@dataclass(frozen=True)
class Leds:
    """``states`` from left to right: a colour's name, or ``off``."""

    states: tuple[str, ...]

    @classmethod
    def random(cls, rng: Random) -> Leds:
        """Three to five LEDs."""
        return cls(tuple(rng.choice(STATES) for _ in range(rng.randint(3, 5))))

    def draw(self, pen: Pen) -> None:
        """Draw a plate with one lamp a state; lit lamps have a bright core, numbers below."""
        rng = pen.rng
        plate = vary(rng.choice(((45, 45, 50), (80, 85, 90), (200, 200, 195))), rng, 10)
        ink = (235, 235, 235) if sum(plate) < 380 else (25, 25, 25)
        pen.box((0.0, 0.25), (1.0, 0.8), plate, shade(plate, 0.6), radius=0.06)
        pitch = 1.0 / len(self.states)
        radius = min(0.13, pitch * 0.4)
        for index, state in enumerate(self.states):
            x = (index + 0.5) * pitch
            if state == "off":
                pen.disc((x, 0.45), radius, vary((70, 66, 66), rng, 6), (20, 20, 20))
            else:
                lit = vary(COLOURS[state], rng, 15)
                pen.disc((x, 0.45), radius, lit, shade(lit, 0.5))
                pen.disc((x - radius * 0.3, 0.45 - radius * 0.3), radius * 0.3, shade(lit, 1.6))
            pen.text((x, 0.69), str(index + 1), ink, 0.13)
