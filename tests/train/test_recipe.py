import pytest

from tinyllava_train.errors import RecipeError
from tinyllava_train.optimizer import schedule
from tinyllava_train.recipe import parse_changes, read_recipe, recipe_names


def test_every_shipped_recipe_is_valid_when_read():
    assert "panels" in recipe_names()
    for name in recipe_names():
        read_recipe(name)


def test_panels_trains_the_connector_alone_when_it_aligns():
    trained = {stage.name: stage.trains for stage in read_recipe("panels").stages}
    assert trained["align"] == ("connector",)
    assert trained["finetune"] == ("connector", "language_model")


def test_value_is_changed_when_set():
    recipe = read_recipe("panels", parse_changes(["stages.align.steps=7", "data.pictures=9"]))
    assert recipe.data.pictures == 9
    assert next(s for s in recipe.stages if s.name == "align").steps == 7


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("stages.nosuch.steps=1", "no 'nosuch'"),
        ("data.nosuch=1", "no 'nosuch'"),
        ("data.pictures=0", "data.pictures"),
        ("data.pictures=many", "data.pictures"),
        ("data.pictures", "write key.sub=value"),
    ],
)
def test_change_is_refused_in_one_line_when_it_is_wrong(pair, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe("panels", parse_changes([pair]))
    assert "\n" not in str(caught.value)


def test_recipe_is_refused_with_the_known_ones_when_there_is_no_such_name():
    with pytest.raises(RecipeError, match="there are panels"):
        read_recipe("nosuch")


def test_recipe_file_is_refused_when_it_is_no_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("seed = ", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.toml"):
        read_recipe(str(path))


def test_recipe_is_refused_when_a_pattern_is_no_regular_expression():
    changes = parse_changes(["stages.finetune.weights=[{weight = 1.0, pattern = '(' }]"])
    with pytest.raises(RecipeError, match="no regular expression"):
        read_recipe("panels", changes)


def test_rate_rises_then_falls_to_zero_when_steps_pass():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates.index(1.0) in (9, 10)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01
