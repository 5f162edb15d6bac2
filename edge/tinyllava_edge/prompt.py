"""Prompts: the pieces of text around a picture, in the form the model was trained on.

Used by training and at run time, so that what is trained is what is run.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tinyllava_edge.semantics import PromptSemantics, Semantics, SensorSemantics


@dataclass(frozen=True)
class Reading:
    """One sensor value as the prompt shows it; ``age_s`` is whole seconds since it was taken."""

    name: str
    value: str
    unit: str = ""
    age_s: int = 0
    stale: bool = False


def sensor_line(readings: Sequence[Reading], form: SensorSemantics) -> str:
    """Write readings as one line, in the order given; the empty string where there are none."""
    if not readings:
        return ""
    items = (
        (form.stale_item if r.stale else form.item).format(
            name=r.name, value=r.value, unit=f" {r.unit}" if r.unit else "", age_s=r.age_s
        )
        for r in readings
    )
    return form.lead + form.separator.join(items) + form.end


def prefix_text(semantics: Semantics) -> str:
    """The text before the picture: the same for every question, so it is computed once."""
    return semantics.prompt.before_image


def question_text(question: str, readings: Sequence[Reading], semantics: Semantics) -> str:
    """The text after the picture, up to where the model starts to answer."""
    prompt = semantics.prompt
    return prompt.after_image + sensor_line(readings, semantics.sensors) + question + prompt.tail


def in_unicode_form(text: str, prompt: PromptSemantics) -> str:
    """A piece of text as the model's tokenizer expects it, for tokenizers that do not do it."""
    return text if prompt.unicode_form == "as_is" else unicodedata.normalize("NFC", text)
