"""The panels benchmark: test questions from seeds that are never trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tinyllava_train.panels.dataset import scene_seed
from tinyllava_train.panels.photo import take_photo
from tinyllava_train.panels.questions import ASKERS, PanelQuestion, ask_kind
from tinyllava_train.panels.scene import Scene

QUESTIONS_PER_PICTURE = 4


@dataclass(frozen=True)
class BenchPicture:
    """A test picture (JPEG bytes) and the questions asked on it."""

    name: str
    photo: bytes
    questions: tuple[PanelQuestion, ...]


def bench_pictures(seed: int, questions: int) -> Iterator[BenchPicture]:
    """Pictures with ``questions`` questions in all, each kind equally often (give or take one)."""
    kinds = list(ASKERS)
    wanted = Counter({kind: questions // len(kinds) for kind in kinds})
    wanted.update(kinds[: questions % len(kinds)])
    index = 0
    while sum(wanted.values()) > 0:
        scene = Scene.random(scene_seed("test", seed, index))
        rng = Random(f"bench {scene.seed}")
        asked = _ask(scene, wanted, rng)
        if asked:
            yield BenchPicture(f"{scene.seed:010d}.jpg", take_photo(scene), tuple(asked))
        index += 1


def _ask(scene: Scene, wanted: Counter[str], rng: Random) -> list[PanelQuestion]:
    """Up to four questions of the kinds that are most wanted; takes them off ``wanted``."""
    asked: list[PanelQuestion] = []
    order = sorted((kind for kind in wanted if wanted[kind] > 0), key=lambda kind: -wanted[kind])
    for kind in order:
        question = ask_kind(scene, kind, rng) if len(asked) < QUESTIONS_PER_PICTURE else None
        if question is not None:
            asked.append(question)
            wanted[kind] -= 1
    return asked
