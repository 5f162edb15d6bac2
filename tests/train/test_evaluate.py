import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from tinyllava_edge.errors import BundleError
from tinyllava_train.answerers import CheckpointAnswerer, open_answerer
from tinyllava_train.cli import app
from tinyllava_train.evaluate import evaluate_panels
from tinyllava_train.panels.bench import bench_pictures
from tinyllava_train.panels.questions import ASKERS


class KnowsAll:
    """Reads the truth off the turns; blind, it says nothing."""

    def answer(self, picture, key, turns):
        del picture
        return ["" if key.startswith("blank") else turn.answer for turn in turns]


class AlwaysYes:
    def answer(self, picture, key, turns):
        del picture, key
        return ["yes" for _ in turns]


def test_kinds_are_asked_equally_often_when_benched():
    kinds = Counter(q.kind for picture in bench_pictures(3, 100) for q in picture.questions)
    assert sum(kinds.values()) == 100
    assert set(kinds) == set(ASKERS)
    assert max(kinds.values()) - min(kinds.values()) <= 1


def test_bench_is_the_same_when_the_seed_is_the_same():
    assert list(bench_pictures(3, 20)) == list(bench_pictures(3, 20))
    assert list(bench_pictures(3, 20)) != list(bench_pictures(4, 20))


def test_score_is_one_when_everything_is_known():
    score = evaluate_panels(KnowsAll(), seed=1, questions=30)
    assert (score.accuracy, score.blind_accuracy, score.questions) == (1.0, 0.0, 30)


def test_score_counts_exact_matches_when_only_yes_is_said():
    score = evaluate_panels(AlwaysYes(), seed=1, questions=90)
    assert score.by_kind["read"] == 0.0
    assert 0.2 < score.by_kind["safe"] < 0.8
    assert score.accuracy == score.blind_accuracy
    assert score.as_json()["accuracy"] == round(sum(score.by_kind.values()) / 9, 4)


def test_answers_are_written_when_a_file_is_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    evaluate_panels(AlwaysYes(), seed=1, questions=9, answers_file=path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 9
    assert all(row["right"] == (row["truth"] == "yes") for row in rows)


def test_answers_do_not_depend_on_company_when_asked_together(finished_run):
    answerer = CheckpointAnswerer(finished_run / "checkpoint")
    from io import BytesIO

    from PIL import Image

    from tinyllava_train.conversations import Turn

    picture = next(bench_pictures(0, 4))
    image = Image.open(BytesIO(picture.photo)).convert("RGB")
    turns = [Turn(q.text, q.answer, q.readings) for q in picture.questions]
    together = answerer.answer(image, "a", turns)
    assert together == [answerer.answer(image, "a", [turn])[0] for turn in turns]


def test_eval_prints_one_json_object_when_asked_for_json(finished_run):
    folder = str(finished_run / "checkpoint")
    command = ["eval", folder, "--bench", "panels", "--seed", "5", "--questions", "9", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert set(facts) == {"accuracy", "by_kind", "blind_accuracy", "questions", "seed"}
    assert (facts["questions"], facts["seed"]) == (9, 5)


def test_folder_is_refused_in_one_line_when_it_is_neither(tmp_path):
    with pytest.raises(BundleError, match="neither a bundle"):
        open_answerer(tmp_path)
    result = CliRunner().invoke(app, ["eval", str(tmp_path), "--bench", "panels"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_unknown_bench_is_a_usage_error():
    result = CliRunner().invoke(app, ["eval", ".", "--bench", "nosuch"])
    assert result.exit_code == 2
