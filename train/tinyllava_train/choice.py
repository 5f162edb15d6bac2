"""Which turns of a sample share its sequence: all kinds alike, or as a recipe weighs them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from random import Random

from tinyllava_train.conversations import Sample, Turn
from tinyllava_train.recipe import QuestionWeight

CAPTION_KIND = "describe"

TurnChoice = Callable[[Sample, Random], Sequence[Turn]]


def captions(sample: Sample, rng: Random) -> Sequence[Turn]:
    """The captions of a sample only."""
    del rng
    return [turn for turn in sample.turns if turn.kind == CAPTION_KIND]


def questions(sample: Sample, rng: Random) -> Sequence[Turn]:
    """All turns of a sample but its captions."""
    del rng
    return [turn for turn in sample.turns if turn.kind != CAPTION_KIND]


def weighted(count: int, rules: Sequence[QuestionWeight] = (), done: float = 0.0) -> TurnChoice:
    """Up to ``count`` turns of a sample; those of greater weight come oftener and first.

    ``done`` is the share of the stage that is done, by which rules fade. Drawn without replacement
    (Efraimidis and Spirakis 2006).
    """

    def choose(sample: Sample, rng: Random) -> Sequence[Turn]:
        keys = [rng.random() ** (1 / turn_weight(turn, rules, done)) for turn in sample.turns]
        order = sorted(range(len(keys)), key=lambda place: -keys[place])
        return [sample.turns[place] for place in order[:count]]

    return choose


def turn_weight(turn: Turn, rules: Sequence[QuestionWeight], done: float = 0.0) -> float:
    """The product of the weights of all rules that a turn falls under; 1 where there is none.

    A rule's pattern is looked for in the readings, each as ``name=value`` and a space, with the
    question behind them.
    """
    readings = "".join(f"{reading.name}={reading.value} " for reading in turn.readings)
    text = readings + turn.question
    return math.prod(
        _faded(rule, done)
        for rule in rules
        if rule.kind in (None, turn.kind) and re.search(rule.pattern, text)
    )


def _faded(rule: QuestionWeight, done: float) -> float:
    """A rule's weight at this share of the stage: its logarithm goes evenly to zero."""
    left = 1.0 if rule.until is None else max(0.0, 1 - done / rule.until)
    return float(rule.weight**left)
