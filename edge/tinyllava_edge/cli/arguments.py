"""Arguments that several commands share, from their words to what they mean."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from tinyllava_edge.bundle import Bundle, open_bundle, verify_bundle
from tinyllava_edge.demo import demo_bundle
from tinyllava_edge.prompt import Reading

DEMO = "demo"
_SENSOR = re.compile(r"(?P<name>[^=@]+)=(?P<value>[^@]+)(?:@(?P<age>\d{1,9})s?)?")
_QUANTITY = re.compile(r"(?P<number>[-+]?\d+(?:\.\d+)?)\s*(?P<unit>[^\d\s.,][^@]*)?")


def bundle_folder(word: str) -> Path:
    """The folder that a BUNDLE argument names; ``demo`` is the shipped one."""
    return demo_bundle() if word == DEMO else Path(word)


def verified_bundle(word: str) -> Bundle:
    """The bundle that a BUNDLE argument names, opened, with every file's hash compared.

    One flipped bit of a storage card would otherwise answer with confidence. Raises
    ``BundleError``.
    """
    bundle = open_bundle(bundle_folder(word))
    verify_bundle(bundle)
    return bundle


def parse_sensor(text: str) -> Reading:
    """Read ``name=value[unit][@age]``, as in ``temperature=62 °C@3``; age is whole seconds.

    Raises a usage error for anything else.
    """
    match = _SENSOR.fullmatch(text.strip())
    if match is None or not match["name"].strip() or not match["value"].strip():
        raise typer.BadParameter(
            f"{text!r} is no reading; write name=value[unit][@seconds], temperature=62°C@3 say"
        )
    age_s = int(match["age"] or 0)
    name, value = match["name"].strip(), match["value"].strip()
    quantity = _QUANTITY.fullmatch(value)
    if quantity is None:
        return Reading(name, value, age_s=age_s)
    return Reading(name, quantity["number"], (quantity["unit"] or "").strip(), age_s)
