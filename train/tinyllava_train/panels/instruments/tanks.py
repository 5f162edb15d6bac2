"""Two or three upright tanks with a liquid level, lettered A, B, C."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.instruments.pen import COLOURS, Pen, shade, vary

LETTERS = "ABC"
LEVELS = (10, 30, 50, 70, 90)


@dataclass(frozen=True)
class Tanks:
    """``levels`` in percent, five different ones, none twice; ``colour`` of the liquid."""

    levels: tuple[int, ...]
    colour: str

    @property
    def by_letter(self) -> dict[str, int]:
        """Level of each tank."""
        return dict(zip(LETTERS, self.levels, strict=False))

    @property
    def fullest(self) -> str:
        """The letter of the tank with the highest level."""
        return LETTERS[self.levels.index(max(self.levels))]

    @property
    def emptiest(self) -> str:
        """The letter of the tank with the lowest level."""
        return LETTERS[self.levels.index(min(self.levels))]

    @classmethod
    def random(cls, rng: Random) -> Tanks:
        """Different levels from 10 to 90 percent."""
        levels = rng.sample(LEVELS, rng.randint(2, 3))
        return cls(tuple(levels), rng.choice(list(COLOURS)))

    def draw(self, pen: Pen) -> None:
        """Draw glass, liquid, a scale with a mark every ten percent, and the letters."""
        rng = pen.rng
        glass = vary(rng.choice(((215, 220, 225), (240, 240, 240), (60, 64, 70))), rng, 8)
        liquid = vary(COLOURS[self.colour], rng, 15)
        ink = rng.choice(((20, 20, 20), (40, 40, 60)))
        pitch = 1.0 / len(self.levels)
        top, bottom = 0.03, 0.82
        for index, level in enumerate(self.levels):
            left = index * pitch + 0.05
            right = (index + 1) * pitch - 0.05
            pen.box((left, top), (right, bottom), glass, ink, 0.02)
            height = (bottom - top) * (level + rng.uniform(-2.0, 2.0)) / 100
            pen.box((left + 0.02, bottom - height), (right - 0.02, bottom - 0.015), liquid)
            mark = shade(glass, 0.45) if sum(glass) > 300 else (190, 190, 190)
            for tenth in range(1, 10):
                y = bottom - (bottom - top) * tenth / 10
                reach = 0.5 if tenth == 5 else 0.28
                pen.line([(left, y), (left + (right - left) * reach, y)], mark, 0.012)
            pen.disc(((left + right) / 2, 0.92), 0.085, (245, 245, 240))
            pen.text(((left + right) / 2, 0.92), LETTERS[index], ink, 0.15)
