"""Write panels as a dataset: JPEG pictures and conversations in the LLaVA JSON format.

Beside LLaVA's fields a sample has ``sensors`` and ``kinds``: one entry for each question, the
readings that stand in its prompt (or null) and its kind.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from tinyllava_train.errors import DataError
from tinyllava_train.panels.captions import caption
from tinyllava_train.panels.photo import take_photo
from tinyllava_train.panels.questions import PanelQuestion, ask_many
from tinyllava_train.panels.scene import Scene
from tinyllava_train.progress import track

DESCRIBE = "Describe the panel."
SPLITS = {"train": 0, "validation": 1, "test": 2}
_SPLIT_STRIDE = 1_000_000_000
_RUN_STRIDE = 10_000_000


def scene_seed(split: str, seed: int, index: int) -> int:
    """The seed of one scene. No two splits share a scene, nor do two seeds of a split.

    Training and validation take seeds 0..99, which keeps them below the first test scene; test
    takes any seed from 0. Raises ``DataError`` outside.
    """
    most = None if split == "test" else _SPLIT_STRIDE // _RUN_STRIDE - 1
    if seed < 0 or (most is not None and seed > most):
        raise DataError(
            f"seed {seed}: {split} takes {'0 or more' if most is None else f'0..{most}'}"
        )
    if not 0 <= index < _RUN_STRIDE:
        raise DataError(f"{index} pictures: a seed has {_RUN_STRIDE} at the most")
    return SPLITS[split] * _SPLIT_STRIDE + seed * _RUN_STRIDE + index


def panel_sample(seed: int, *, questions: int, captioned: bool) -> tuple[dict[str, Any], bytes]:
    """One sample and its picture, fixed by the scene's seed."""
    scene = Scene.random(seed)
    rng = Random(f"questions {seed}")
    asked = ask_many(scene, questions, rng)
    if captioned:
        asked.append(PanelQuestion("describe", DESCRIBE, caption(scene, rng)))
    turns: list[dict[str, str]] = []
    for number, question in enumerate(asked):
        image = "<image>\n" if number == 0 else ""
        turns.append({"from": "human", "value": image + question.text})
        turns.append({"from": "gpt", "value": question.answer})
    name = f"{seed:010d}"
    sample = {
        "id": name,
        "image": f"{name}.jpg",
        "conversations": turns,
        "sensors": [[asdict(r) for r in q.readings] or None for q in asked],
        "kinds": [q.kind for q in asked],
    }
    return sample, take_photo(scene)


def _write_sample(task: tuple[int, int, bool, Path]) -> dict[str, Any]:
    seed, questions, captioned, folder = task
    sample, photo = panel_sample(seed, questions=questions, captioned=captioned)
    (folder / sample["image"]).write_bytes(photo)
    return sample


def write_panels(
    folder: Path, split: str, *, pictures: int, questions: int, seed: int, captioned: bool = True
) -> Path:
    """Write ``pictures`` panels of a split to ``folder/split/`` and return the path of its JSON.

    Does nothing where the JSON is there already; it is written last and renamed into place.
    """
    images = folder / split
    listing = folder / f"{split}.json"
    if listing.exists():
        return listing
    images.mkdir(parents=True, exist_ok=True)
    seeds = (scene_seed(split, seed, index) for index in range(pictures))
    tasks = [(scene, questions, captioned, images) for scene in seeds]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        samples = list(
            track(pool.map(_write_sample, tasks, chunksize=64), f"drawing {split}", len(tasks))
        )
    partial = listing.with_suffix(".partial")
    partial.write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
    partial.replace(listing)
    return listing
