import json

from typer.testing import CliRunner

from tinyllava_edge.demo.scene import load_scenes
from tinyllava_train.cli import app


def test_demo_is_readable_by_edge_when_written(tmp_path):
    result = CliRunner().invoke(app, ["data", "demo", "--out", str(tmp_path), "--pictures", "3"])
    assert result.exit_code == 0, result.output
    scenes = load_scenes(tmp_path)
    assert len(scenes) == 3
    assert all(len(scene.sensors) == 2 for scene in scenes)
    questions = [question for scene in scenes for question in scene.questions]
    assert {q.kind for q in questions} >= {"text", "yes_no"}
    assert sum(bool(q.sensors) for q in questions) == 3


def test_sensor_question_has_both_truths_when_pictures_take_turns(tmp_path):
    CliRunner().invoke(app, ["data", "demo", "--out", str(tmp_path), "--pictures", "4"])
    entries = json.loads((tmp_path / "questions.json").read_text(encoding="utf-8"))
    truths = [q["truth"] for entry in entries for q in entry["questions"] if q["sensors"]]
    assert truths == ["yes", "no", "yes", "no"]
