"""Statements about a scene: the captions that the tower and the connector learn from."""

from __future__ import annotations

from random import Random

from tinyllava_train.panels.instruments.boxes import Boxes
from tinyllava_train.panels.instruments.display import Display
from tinyllava_train.panels.instruments.gauge import Gauge
from tinyllava_train.panels.instruments.leds import Leds
from tinyllava_train.panels.instruments.passages import Door, Valve
from tinyllava_train.panels.instruments.tanks import Tanks
from tinyllava_train.panels.scene import Scene


def statements(scene: Scene) -> list[str]:
    """Every elementary statement that is true of the scene, in a fixed order."""
    true: list[str] = [
        f"there is {scene.hazard} wrong" if scene.hazard == "nothing" else scene.hazard
    ]
    for item in scene.instruments:
        if isinstance(item, Gauge):
            true += [f"gauge at tick {item.tick}", f"gauge in {item.unit}"]
        elif isinstance(item, Display):
            tens, ones = divmod(item.number, 10)
            true += [f"display tens {tens}", f"display ones {ones}"]
        elif isinstance(item, Leds):
            true += [f"LED {n} is {state}" for n, state in enumerate(item.states, 1)]
            true.append(f"{len(item.states)} LEDs")
        elif isinstance(item, Tanks):
            true += [f"tank {letter} is {level} % full" for letter, level in item.by_letter.items()]
            true += [f"{len(item.levels)} tanks", f"the liquid is {item.colour}"]
        elif isinstance(item, Boxes):
            true.append(f"{item.count} boxes")
        elif isinstance(item, (Valve, Door)):
            name = type(item).__name__.lower()
            true.append(f"the {name} is {'open' if item.open else 'closed'}")
    return true


def caption(scene: Scene, rng: Random) -> str:
    """The true statements in random order, as one caption."""
    true = statements(scene)
    rng.shuffle(true)
    return ", ".join(true)
