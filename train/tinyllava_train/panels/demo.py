"""The demo's pictures and questions: a few test panels, with readings for two live sensors."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tinyllava_edge.prompt import Reading
from tinyllava_train.panels.dataset import scene_seed
from tinyllava_train.panels.instruments.display import Display
from tinyllava_train.panels.instruments.gauge import Gauge
from tinyllava_train.panels.photo import take_photo
from tinyllava_train.panels.questions import PanelQuestion, ask_kind
from tinyllava_train.panels.scene import Scene

_UNITS = {"temperature": "°C", "counter": ""}
_PLAIN_QUESTIONS = 3


def write_demo(folder: Path, *, pictures: int, seed: int) -> Path:
    """Write ``pictures/*.jpg`` and ``questions.json``; return the path of the JSON.

    Only panels with a thermometer or a counter are taken, so that the two sensors have a say; the
    sensor agrees with every other picture and contradicts the rest.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    index = 0
    while len(entries) < pictures:
        scene = Scene.random(scene_seed("test", seed, index))
        index += 1
        name = f"panel-{len(entries) + 1}.jpg"
        entry = _entry(scene, name, agrees=len(entries) % 2 == 0)
        if entry is not None:
            (folder / "pictures" / name).write_bytes(take_photo(scene))
            entries.append(entry)
    path = folder / "questions.json"
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _entry(scene: Scene, name: str, *, agrees: bool) -> dict[str, Any] | None:
    rng = Random(f"demo {scene.seed}")
    values = _live_values(scene, rng, agrees=agrees)
    if values is None:
        return None
    asked, value_of = values
    questions = [_row(q) for q in _plain_questions(scene, rng)]
    questions.append(
        {
            "question": f"Does the picture confirm the {asked} sensor?",
            "kind": "yes_no",
            "choices": [],
            "truth": "yes" if agrees else "no",
            "sensors": [asked],
        }
    )
    sensors = [
        {"name": sensor, "value": value_of[sensor], "unit": unit} for sensor, unit in _UNITS.items()
    ]
    return {"picture": name, "sensors": sensors, "questions": questions}


def _live_values(scene: Scene, rng: Random, *, agrees: bool) -> tuple[str, dict[str, str]] | None:
    """The sensor that is asked about, and what both sensors read."""
    values = {"temperature": str(rng.randint(18, 30)), "counter": str(rng.randint(0, 99))}
    gauge, display = scene.find(Gauge), scene.find(Display)
    if gauge is not None and gauge.unit == "°C":
        far = (gauge.value + 50) % 100
        values["temperature"] = str((gauge.value if agrees else far) + rng.choice((-1, 0, 1)))
        return "temperature", values
    if display is not None:
        shown = display.number if agrees else (display.number + rng.randint(20, 80)) % 100
        values["counter"] = str(shown)
        return "counter", values
    return None


def _plain_questions(scene: Scene, rng: Random) -> list[PanelQuestion]:
    """Different kinds, those with a picture-wide answer before those that a guess may hit."""
    order = ["read", "colour", "count", "safe", "highest", "state", "hazard", "yes_no"]
    found = (ask_kind(scene, kind, rng) for kind in rng.sample(order, len(order)))
    plain = [q for q in found if q is not None and not q.readings]
    return plain[:_PLAIN_QUESTIONS]


def _row(question: PanelQuestion) -> dict[str, Any]:
    kind = "yes_no" if "yes" in question.choices else "choice" if question.choices else "text"
    return {
        "question": question.text,
        "kind": kind,
        "choices": list(question.choices) if kind == "choice" else [],
        "truth": question.answer,
        "sensors": _names(question.readings),
    }


def _names(readings: tuple[Reading, ...]) -> list[str]:
    return [reading.name for reading in readings]
