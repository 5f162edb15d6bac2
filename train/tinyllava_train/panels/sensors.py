"""Sensor readings that a scene's picture confirms or contradicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tinyllava_edge.prompt import Reading
from tinyllava_train.panels.instruments.display import Display
from tinyllava_train.panels.instruments.gauge import TICKS, UNITS, Gauge
from tinyllava_train.panels.scene import Scene

_STALE_AFTER_S = 60
_TEXT_SENSORS: dict[str, tuple[str, ...]] = {
    "valve": ("open", "closed"),
    "door": ("open", "closed"),
    "alarm": ("smoke", "leak", "nothing"),
}


@dataclass(frozen=True)
class AgreementCase:
    """Readings, the sensor that is asked about, and whether the picture confirms it."""

    sensor: str
    agrees: bool
    readings: tuple[Reading, ...]


def agreeing_case(scene: Scene, rng: Random) -> AgreementCase | None:
    """A sensor that measures what the picture shows, right or wrong with the same chance."""
    agrees = rng.random() < 0.5
    makers: tuple[Callable[[Scene, bool, Random], Reading | None], ...] = (
        _gauge_reading,
        _gauge_reading,
        _display_reading,
        _passage_reading,
        _alarm_reading,
    )
    for maker in rng.sample(makers, len(makers)):
        reading = maker(scene, agrees, rng)
        if reading is not None:
            others = unrelated_readings(rng, rng.randint(0, 1), without=(reading.name,))
            readings = [reading, *others]
            rng.shuffle(readings)
            return AgreementCase(reading.name, agrees, tuple(readings))
    return None


def unrelated_readings(rng: Random, count: int, *, without: tuple[str, ...]) -> tuple[Reading, ...]:
    """Readings of sensors that nobody asks about."""
    names = [sensor for _, sensor in UNITS.values()] + list(_TEXT_SENSORS) + ["counter"]
    names = [name for name in names if name not in without]
    return tuple(_any_reading(name, rng) for name in rng.sample(names, count))


def _any_reading(name: str, rng: Random) -> Reading:
    for unit, (full_scale, sensor) in UNITS.items():
        if sensor == name:
            return _reading(name, _number(rng.uniform(0, full_scale), full_scale, rng), unit, rng)
    if name in _TEXT_SENSORS:
        return _reading(name, rng.choice(_TEXT_SENSORS[name]), "", rng)
    return _reading(name, str(rng.randint(0, 99)), "", rng)


def _reading(name: str, value: str, unit: str, rng: Random) -> Reading:
    age_s = rng.randint(0, _STALE_AFTER_S) if rng.random() < 0.9 else rng.randint(61, 300)
    return Reading(name, value, unit, age_s, stale=age_s > _STALE_AFTER_S)


def _number(value: float, full_scale: int, rng: Random) -> str:
    """A value as sensors send it: one decimal on short scales, sometimes on long ones."""
    decimals = 1 if full_scale == 10 or rng.random() < 0.4 else 0
    return f"{value:.{decimals}f}"


def _gauge_reading(scene: Scene, agrees: bool, rng: Random) -> Reading | None:
    """Within 0.3 ticks of the gauge, or at least two ticks away."""
    gauge = scene.find(Gauge)
    if gauge is None:
        return None
    if agrees:
        ticks = gauge.tick + rng.uniform(-0.3, 0.3)
    else:
        far = [t for t in range(TICKS + 1) if abs(t - gauge.tick) >= 2]
        ticks = rng.choice(far) + rng.uniform(-0.3, 0.3)
    ticks = min(float(TICKS), max(0.0, ticks))
    value = _number(ticks * gauge.step, gauge.full_scale, rng)
    return _reading(gauge.sensor, value, gauge.unit, rng)


def _display_reading(scene: Scene, agrees: bool, rng: Random) -> Reading | None:
    display = scene.find(Display)
    if display is None:
        return None
    other = (display.number + rng.randint(10, 90)) % 100
    return _reading("counter", str(display.number if agrees else other), "", rng)


def _passage_reading(scene: Scene, agrees: bool, rng: Random) -> Reading | None:
    name = rng.choice(("valve", "door"))
    passage = scene.passage(name)
    if passage is None:
        return None
    return _reading(name, "open" if passage.open == agrees else "closed", "", rng)


def _alarm_reading(scene: Scene, agrees: bool, rng: Random) -> Reading | None:
    others = [hazard for hazard in _TEXT_SENSORS["alarm"] if hazard != scene.hazard]
    return _reading("alarm", scene.hazard if agrees else rng.choice(others), "", rng)
