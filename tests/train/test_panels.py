import io
import re
from collections import Counter
from random import Random

import pytest
from PIL import Image

from tinyllava_train.errors import DataError
from tinyllava_train.panels.captions import statements
from tinyllava_train.panels.dataset import SPLITS, scene_seed
from tinyllava_train.panels.instruments.gauge import Gauge
from tinyllava_train.panels.instruments.leds import Leds
from tinyllava_train.panels.instruments.tanks import Tanks
from tinyllava_train.panels.photo import take_photo
from tinyllava_train.panels.questions import ASKERS, UNKNOWN, ask_kind, ask_many
from tinyllava_train.panels.scene import KINDS, Scene

SCENES = [Scene.random(seed) for seed in range(300)]


def asked(kind):
    for scene in SCENES:
        for number in range(4):
            question = ask_kind(scene, kind, Random(f"{scene.seed} {number}"))
            if question is not None:
                yield scene, question


def test_photo_is_the_same_jpeg_when_the_seed_is_the_same():
    assert take_photo(Scene.random(5)) == take_photo(Scene.random(5))
    assert take_photo(Scene.random(5)) != take_photo(Scene.random(6))


def test_photo_is_a_whole_jpeg_when_taken():
    for scene in SCENES[:10]:
        with Image.open(io.BytesIO(take_photo(scene))) as photo:
            photo.load()
            assert photo.format == "JPEG"
            assert 256 <= max(photo.size) <= 272


def test_picture_shows_a_different_state_when_only_the_state_differs():
    low, high = (Scene(1, (Gauge(tick, "°C"),), "nothing").draw() for tick in (2, 8))
    assert low.tobytes() != high.tobytes()


def test_every_instrument_and_hazard_appears_when_many_scenes_are_drawn():
    assert {type(item) for scene in SCENES for item in scene.instruments} == set(KINDS)
    assert {scene.hazard for scene in SCENES} == {"nothing", "smoke", "leak"}


def test_splits_and_seeds_share_no_scene():
    seeds = [scene_seed(s, seed, i) for s in SPLITS for seed in (0, 1, 99) for i in (0, 9_999_999)]
    assert len(set(seeds)) == len(seeds)
    assert max(scene_seed("train", 99, 9_999_999), scene_seed("validation", 99, 9_999_999)) < (
        scene_seed("test", 0, 0)
    )


@pytest.mark.parametrize(("split", "seed"), [("train", 100), ("validation", -1), ("test", -1)])
def test_scene_seed_is_refused_when_it_would_leave_its_split(split, seed):
    with pytest.raises(DataError, match=f"seed {seed}"):
        scene_seed(split, seed, 0)


def test_test_split_takes_any_seed_when_it_is_large():
    assert scene_seed("test", 123_456_789, 0) > scene_seed("train", 99, 9_999_999)


def test_there_are_nine_kinds_and_each_is_asked():
    assert len(ASKERS) == 9
    for kind in ASKERS:
        assert next(asked(kind), None) is not None, kind


@pytest.mark.parametrize("kind", list(ASKERS))
def test_no_answer_is_favoured_when_choices_are_two(kind):
    answers = Counter(question.answer for _, question in asked(kind))
    if {"yes", "no"} & set(answers):
        share = answers["yes"] / (answers["yes"] + answers["no"])
        assert 0.4 < share < 0.6, answers


def test_answer_is_among_the_choices_when_there_are_choices():
    for kind in ASKERS:
        for _, question in asked(kind):
            if question.choices:
                assert question.answer in question.choices, question


def test_gauge_answer_keeps_the_limit_when_asked_whether_it_is_safe():
    checked = 0
    for scene, question in asked("safe"):
        gauge, text = scene.find(Gauge), question.text
        found = re.search(r"gauge must stay (below|above) ([\d.]+)", text)
        if found:
            side, limit = found[1], float(found[2])
            assert gauge.value != limit
            safe = gauge.value < limit if side == "below" else gauge.value > limit
            assert question.answer == ("yes" if safe else "no")
            checked += 1
    assert checked > 50


def test_highest_names_the_extreme_tank_when_levels_differ():
    for scene, question in asked("highest"):
        levels = scene.find(Tanks).by_letter
        extreme = min(levels.values()) if "lowest" in question.text else max(levels.values())
        assert levels[question.answer] == extreme


def test_led_answers_match_the_row_when_asked_by_number():
    for scene, question in asked("colour"):
        found = re.search(r"LED (\d)", question.text)
        if found:
            assert scene.find(Leds).states[int(found[1]) - 1] == question.answer


def test_sensor_question_agrees_only_when_the_reading_is_near_the_gauge():
    checked = 0
    for scene, question in asked("sensor"):
        gauge = scene.find(Gauge)
        reading = next((r for r in question.readings if gauge and r.name == gauge.sensor), None)
        if reading is None or reading.name not in question.text:
            continue
        distance = abs(float(reading.value) - gauge.value) / gauge.step
        assert distance < 0.36 if question.answer == "yes" else distance > 1.6
        checked += 1
    assert checked > 30


def test_reading_is_marked_stale_exactly_when_it_is_old():
    readings = [r for _, question in asked("sensor") for r in question.readings]
    assert {r.stale for r in readings} == {True, False}
    assert all(r.stale == (r.age_s > 60) for r in readings)


def test_unknown_is_the_answer_only_when_the_instrument_is_missing():
    unknown = [(s, q) for s, q in asked("yes_no") if q.answer == UNKNOWN]
    assert unknown
    for scene, question in unknown:
        name = "valve" if "valve" in question.text else "door"
        assert scene.passage(name) is None


def test_questions_of_a_scene_differ_when_many_are_asked():
    questions = ask_many(SCENES[0], 12, Random(1))
    assert len({(q.text, q.readings) for q in questions}) == len(questions) == 12


def test_statements_name_every_state_of_the_scene_once_when_written():
    for scene in SCENES:
        true = statements(scene)
        assert len(set(true)) == len(true)
        leds, gauge = scene.find(Leds), scene.find(Gauge)
        for number, state in enumerate(leds.states if leds else (), 1):
            assert f"LED {number} is {state}" in true
        assert (gauge is not None) == any(s.startswith("gauge at tick") for s in true)
        # A caption is cut at its commas again, so no statement may hold one.
        assert not any("," in statement for statement in true)


def test_all_instruments_are_stated_when_many_scenes_are_drawn():
    seen = {statement for scene in SCENES for statement in statements(scene)}
    assert len(seen) == 92
