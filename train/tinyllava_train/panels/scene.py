"""A scene: which instruments a panel has, what they show, and where they sit."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

from PIL import Image, ImageDraw

from tinyllava_train.panels.instruments.boxes import Boxes
from tinyllava_train.panels.instruments.display import Display
from tinyllava_train.panels.instruments.gauge import Gauge
from tinyllava_train.panels.instruments.hazards import HAZARDS, Box, draw_hazard
from tinyllava_train.panels.instruments.leds import Leds
from tinyllava_train.panels.instruments.passages import Door, Valve
from tinyllava_train.panels.instruments.pen import FONTS, Pen, Rgb, shade, vary
from tinyllava_train.panels.instruments.tanks import Tanks


class Instrument(Protocol):
    """Anything that can be drawn on a panel."""

    def draw(self, pen: Pen) -> None:
        """Draw the state inside the pen's unit square."""


AnyInstrument = TypeVar("AnyInstrument", bound=Instrument)

KINDS: tuple[type[Gauge | Leds | Tanks | Display | Valve | Door | Boxes], ...] = (
    Gauge,
    Leds,
    Tanks,
    Display,
    Valve,
    Door,
    Boxes,
)
_CANVASES = ((256, 256), (256, 256), (272, 256), (256, 272))
_WALLS: tuple[Rgb, ...] = (
    (120, 125, 130),
    (175, 178, 172),
    (70, 78, 88),
    (150, 140, 120),
    (95, 115, 105),
    (205, 205, 200),
)


@dataclass(frozen=True)
class Scene:
    """At most one instrument of each kind, one hazard or ``nothing``; fixed by its seed."""

    seed: int
    instruments: tuple[Instrument, ...]
    hazard: str

    def find(self, kind: type[AnyInstrument]) -> AnyInstrument | None:
        """The instrument of a kind, if the panel has one."""
        return next((item for item in self.instruments if isinstance(item, kind)), None)

    def passage(self, name: str) -> Valve | Door | None:
        """The ``valve`` or the ``door``, if the panel has one."""
        return self.find(Valve) if name == "valve" else self.find(Door)

    @classmethod
    def random(cls, seed: int) -> Scene:
        """Three or four instruments; a hazard takes the place of the fourth."""
        rng = Random(f"scene {seed}")
        hazard = rng.choice(HAZARDS)
        count = 3 if hazard != "nothing" else rng.choice((3, 4))
        kinds = rng.sample(KINDS, count)
        return cls(seed, tuple(kind.random(rng) for kind in kinds), hazard)

    def draw(self) -> Image.Image:
        """Draw the panel, before light and lens (see ``photo``), RGB, about 256 pixels wide."""
        rng = Random(f"drawing {self.seed}")
        width, height = rng.choice(_CANVASES)
        canvas = _wall(width, height, rng)
        slots = _slots(width, height, rng)
        font_name = rng.choice(FONTS)
        for instrument, slot in zip(self.instruments, slots, strict=False):
            side = min(slot[2] - slot[0], slot[3] - slot[1]) * rng.uniform(0.86, 0.96)
            left = rng.uniform(slot[0] + 1, slot[2] - side - 1)
            top = rng.uniform(slot[1] + 1, slot[3] - side - 1)
            pen = Pen(ImageDraw.Draw(canvas), left, top, side, rng, font_name)
            instrument.draw(pen)
        return draw_hazard(canvas, self.hazard, slots[3], rng)


def _wall(width: int, height: int, rng: Random) -> Image.Image:
    colour = vary(rng.choice(_WALLS), rng, 15)
    canvas = Image.new("RGB", (width, height), colour)
    pen = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:
        margin = rng.randint(2, 6)
        frame = (margin, margin, width - margin, height - margin)
        pen.rounded_rectangle(frame, 8, shade(colour, rng.uniform(0.85, 1.12)), shade(colour, 0.6))
    if rng.random() < 0.4:
        for x in (8, width - 8):
            for y in (8, height - 8):
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), shade(colour, 0.5))
    for _ in range(rng.randint(0, 3)):
        y = rng.randint(0, height)
        ends = ((0, y), (width, y + rng.randint(-12, 12)))
        pen.line(ends, shade(colour, rng.choice((0.8, 1.15))), rng.randint(1, 2))
    return canvas


def _slots(width: int, height: int, rng: Random) -> list[Box]:
    """Four places in a two by two grid with a moving cross, in random order."""
    x = width * rng.uniform(0.48, 0.52)
    y = height * rng.uniform(0.48, 0.52)
    slots = [(0.0, 0.0, x, y), (x, 0.0, width, y), (0.0, y, x, height), (x, y, width, height)]
    rng.shuffle(slots)
    return slots
