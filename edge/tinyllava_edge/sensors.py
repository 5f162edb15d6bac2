"""The latest reading of each sensor, from a number, a text or a place inside JSON."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyllava_edge.drops import Drops
from tinyllava_edge.prompt import Reading

MAX_PAYLOAD_BYTES = 64 << 10
MAX_VALUE_CHARS = 64
MAX_UNIT_CHARS = 16


@dataclass(frozen=True)
class SensorForm:
    """How a sensor's payload is read. ``pointer`` is a JSON pointer (RFC 6901)."""

    unit: str = ""
    pointer: str | None = None
    stale_after_s: float = 60.0


@dataclass(frozen=True)
class _Kept:
    value: str
    unit: str
    arrived_s: float
    old: bool


class SensorBoard:
    """Keeps one reading per sensor and counts what it cannot read.

    With ``forms`` only those sensors are taken; without, any name up to ``max_sensors``.
    """

    def __init__(self, forms: Mapping[str, SensorForm], drops: Drops, *, max_sensors: int) -> None:
        self._lock = threading.Lock()
        self._forms = dict(forms)
        self._open = not forms
        self._drops = drops
        self._max_sensors = max_sensors
        self._kept: dict[str, _Kept] = {}

    def put(self, name: str, payload: bytes, *, retained: bool = False) -> None:
        """Take a reading. A retained one is of unknown age, so it counts as stale."""
        form = self._form(name)
        if form is None:
            self._drops.count("sensor_unknown")
            return
        try:
            value, unit = read_value(payload, form.pointer)
        except ValueError:
            self._drops.count("sensor_unreadable")
            return
        with self._lock:
            self._kept[name] = _Kept(value, form.unit or unit, time.monotonic(), retained)

    def reading(self, name: str) -> Reading | None:
        """The latest reading, stale where it is old; None where there is none."""
        with self._lock:
            kept = self._kept.get(name)
            form = self._forms.get(name, SensorForm())
        if kept is None:
            return None
        age_s = time.monotonic() - kept.arrived_s
        stale = kept.old or age_s > form.stale_after_s
        return Reading(name, kept.value, kept.unit, int(age_s), stale)

    def names(self) -> list[str]:
        """Every sensor that is configured or has been heard."""
        with self._lock:
            return sorted({*self._forms, *self._kept})

    def _form(self, name: str) -> SensorForm | None:
        with self._lock:
            if name in self._forms:
                return self._forms[name]
            known = name in self._kept or len(self._kept) < self._max_sensors
            return SensorForm() if self._open and known else None


def read_value(payload: bytes, pointer: str | None) -> tuple[str, str]:
    """A value as the sensor wrote it, and its unit where the JSON has ``{"value", "unit"}``.

    Without a pointer the payload is a bare number or text, or such an object. Raises
    ``ValueError`` for anything that is not one short line of printable text.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes")
    text = payload.decode("utf-8").strip()
    if pointer is not None:
        return _short(_scalar(_point(_parse(text), pointer)), MAX_VALUE_CHARS), ""
    if text.startswith("{"):
        data = _parse(text)
        unit = data.get("unit", "")
        if not isinstance(unit, str):
            raise ValueError("unit is no text")
        value = _short(_scalar(data.get("value")), MAX_VALUE_CHARS)
        return value, _short(unit, MAX_UNIT_CHARS) if unit else ""
    return _short(text, MAX_VALUE_CHARS), ""


def _parse(text: str) -> Any:
    """JSON with numbers kept as they were written: 62.0 stays "62.0"."""
    try:
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _point(data: Any, pointer: str) -> Any:
    """Follow a JSON pointer. Raises ``ValueError`` where it leads nowhere."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(data, dict) and key in data:
            data = data[key]
        elif isinstance(data, list) and key.isdecimal() and int(key) < len(data):
            data = data[int(key)]
        else:
            raise ValueError(f"nothing at {pointer}")
    return data


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    raise ValueError("no number or text")


def _short(text: str, limit: int) -> str:
    text = text.strip()
    if not text or len(text) > limit or not text.isprintable():
        raise ValueError(f"not 1 to {limit} printable characters")
    return text
