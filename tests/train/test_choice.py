from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tinyllava_edge.prompt import Reading
from tinyllava_train.choice import captions, questions, turn_weight, weighted
from tinyllava_train.conversations import Sample, Turn
from tinyllava_train.recipe import QuestionWeight, read_recipe


def test_captions_and_questions_are_kept_apart_when_chosen(dataset):
    sample = dataset.samples[0]
    (caption,) = captions(sample, Random(0))
    assert caption.kind == "describe"
    chosen = questions(sample, Random(0))
    assert len(chosen) == 4
    assert all(turn.kind != "describe" for turn in chosen)


def test_turns_come_once_when_drawn(dataset):
    sample = dataset.samples[0]
    chosen = weighted(99)(sample, Random(0))
    assert len(chosen) == len(set(chosen)) == len(sample.turns)


def test_heavier_kinds_come_oftener_when_weighted():
    sample = Sample("", Path(), tuple(Turn(f"{n}", "", kind="ab"[n % 2]) for n in range(10)))

    def share(weight):
        choose = weighted(2, [QuestionWeight(kind="a", weight=weight)])
        kinds = Counter(turn.kind for n in range(500) for turn in choose(sample, Random(n)))
        return kinds["a"] / kinds.total()

    assert share(0.01) < 0.1
    assert share(1.0) == pytest.approx(0.5, abs=0.05)
    assert share(20.0) > 0.9


def test_weights_multiply_when_several_rules_hold():
    turn = Turn("Is the door open?", "yes", kind="yes_no")
    rules = [
        QuestionWeight(weight=0.5, kind="yes_no"),
        QuestionWeight(weight=0.5, pattern=r"open\?$"),
        QuestionWeight(weight=0.5, kind="safe"),
        QuestionWeight(weight=0.5, pattern="closed"),
    ]
    assert turn_weight(turn, rules) == 0.25
    assert turn_weight(turn, []) == 1


def test_pattern_sees_the_readings_before_the_question():
    turn = Turn("Does the door sensor agree?", "no", (Reading("door", "closed"),))
    rules = [QuestionWeight(weight=0.5, pattern=r"(valve|door)=closed .*the \1 ")]
    assert turn_weight(turn, rules) == 0.5


def test_rule_fades_out_when_its_share_of_the_stage_passes():
    turn = Turn("?", "!")
    rules = [QuestionWeight(weight=0.04, until=0.5)]
    weights = [turn_weight(turn, rules, done) for done in (0.0, 0.25, 0.5, 0.75)]
    assert weights == pytest.approx([0.04, 0.2, 1.0, 1.0])


def test_every_rule_of_the_panels_recipe_falls_on_some_question(dataset_of_many_questions):
    turns = [turn for sample in dataset_of_many_questions for turn in sample.turns]
    rules = [rule for stage in read_recipe("panels").stages for rule in stage.weights]
    for rule in rules:
        assert any(turn_weight(turn, [rule]) == rule.weight for turn in turns), rule
        assert any(turn_weight(turn, [rule]) == 1 for turn in turns), rule
