"""See once, ask many: what a question costs on a new frame, and what a further one costs.

    python benchmarks/see_once.py [--bundle DIR] [--rounds N] [--json]

Runs on the shipped bundle unless another is named. All rows are measured in turns in one run, so
that a machine that changes its pace changes all of them; the median and the spread are printed.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from tinyllava_edge.bundle import open_bundle
from tinyllava_edge.demo import demo_bundle
from tinyllava_edge.demo.scene import load_scenes
from tinyllava_edge.engines.choose import open_engine
from tinyllava_edge.engines.contract import Engine, Question

QUESTIONS = (
    "Is there any smoke?",
    "Is anything leaking?",
    "What does the gauge read?",
    "What number is on the display?",
    "How many boxes are there?",
    "Is the valve open?",
    "Is the door closed?",
    "What colour is LED 1?",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bundle = open_bundle(options.bundle or demo_bundle())
    engine = open_engine(bundle)
    pictures = [Image.open(io.BytesIO(scene.data)).convert("RGB") for scene in load_scenes()]
    times = measure(engine, pictures, options.rounds)
    engine.close()
    rows = {name: summary(values) for name, values in times.items()}
    if options.json:
        print(json.dumps({"bundle": bundle.manifest.name, "rounds": options.rounds, "ms": rows}))
    else:
        show(bundle.manifest.name, rows, options.rounds)


def measure(engine: Engine, pictures: list[Image.Image], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each row, a value a round; the first two rounds warm up."""
    names = ("first question on a new frame", "next question on it", "8 more in one call")
    times: dict[str, list[float]] = {name: [] for name in names}
    first, second = Question(QUESTIONS[0]), Question(QUESTIONS[1])
    batch = [Question(text) for text in QUESTIONS]
    for number in range(rounds + 2):
        picture, key = pictures[number % len(pictures)], f"round {number}"
        works: tuple[Callable[[], object], ...] = (
            lambda picture=picture, key=key: engine.ask(engine.see(picture, key), [first]),
            lambda picture=picture, key=key: engine.ask(engine.see(picture, key), [second]),
            lambda picture=picture, key=key: engine.ask(engine.see(picture, key), batch),
        )
        for name, work in zip(names, works, strict=True):
            began = time.perf_counter()
            work()
            if number >= 2:
                times[name].append((time.perf_counter() - began) * 1000)
    return times


def summary(values: list[float]) -> dict[str, float]:
    """Median and the middle half of the values."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 2), "q1": round(low, 2), "q3": round(high, 2)}


def show(name: str, rows: dict[str, dict[str, float]], rounds: int) -> None:
    """The table for people."""
    table = Table("", "median ms", "middle half", title=f"{name}, {rounds} rounds")
    for row, facts in rows.items():
        table.add_row(row, f"{facts['median']:.1f}", f"{facts['q1']:.1f} .. {facts['q3']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
