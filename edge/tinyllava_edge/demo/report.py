"""What the demo prints: coloured on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tinyllava_edge.demo.show import CAMERA, Judged

PLAIN_WIDTH = 10_000


class Report:
    """Writes to standard output, or says nothing where ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._console = Console(quiet=quiet, width=width, highlight=False, soft_wrap=True)
        self._picture = ""

    def header(self, lines: dict[str, str]) -> None:
        """Who takes part: a name and a line each."""
        for name, line in lines.items():
            self._console.print(Text.assemble((f"{name:<9}", "bold"), line))

    def judged(self, one: Judged) -> None:
        """One line for one answer, under its picture's name."""
        if one.picture != self._picture:
            self._picture = one.picture
            self._console.print()
        self._console.print(_line(one))

    def totals(self, judged: Sequence[Judged]) -> None:
        """The last line, which programs may read."""
        facts = count(judged)
        self._console.print()
        self._console.print(
            f"{facts['asked']} asked, {facts['answered']} answered, {facts['right']} right"
        )

    def invitation(self, base: str, port: int, question: str) -> None:
        """How to ask by hand while the demo keeps running."""
        broker = f"-h 127.0.0.1 -p {port}"
        body = {"id": "mine-1", "camera": CAMERA, "question": question}
        ask = shlex.quote(json.dumps(body, ensure_ascii=False))
        for line in (
            "",
            f"The broker stays on port {port}; Ctrl-C ends it. In two other terminals:",
            f"  mosquitto_sub {broker} -v -t '{base}/answer/+'",
            f"  mosquitto_pub {broker} -q 1 -t {base}/ask -m {ask}",
            "The camera goes on showing its pictures. A picture of your own, and all state:",
            f"  mosquitto_pub {broker} -t {base}/camera/{CAMERA}/frame -f PICTURE.jpg",
            f"  mosquitto_sub {broker} -v -t {base}/status -t {base}/health",
        ):
            self._console.print(line, markup=False)


def count(judged: Sequence[Judged]) -> dict[str, int]:
    """How many were asked, answered and right."""
    return {
        "asked": len(judged),
        "answered": sum(one.answer is not None for one in judged),
        "right": sum(one.right for one in judged),
    }


def as_json(judged: Sequence[Judged], model: str) -> dict[str, Any]:
    """Everything, for programs."""
    answers = [
        {
            "picture": one.picture,
            "question": one.question.question,
            "kind": one.question.kind,
            "sensors": one.sensor_line,
            "answer": one.answer,
            "confidence": one.confidence,
            "truth": one.question.truth,
            "right": one.right,
            "milliseconds": None if one.milliseconds is None else round(one.milliseconds, 1),
            "error": one.error,
        }
        for one in judged
    ]
    return {**count(judged), "model": model, "answers": answers}


def _line(one: Judged) -> Text:
    mark, style = ("✓", "bold green") if one.right else ("✗", "bold red")
    sensors = f"[{one.sensor_line}] " if one.sensor_line else ""
    question = Text.assemble(
        (f"{one.picture:<12} ", "cyan"), (sensors, "magenta"), one.question.question, " "
    )
    if one.answer is None:
        return question + Text.assemble((mark, style), f" {one.error}")
    sure = "" if one.confidence is None else f" {one.confidence:4.0%} sure"
    return question + Text.assemble(
        ("-> ", "dim"),
        (one.answer, "bold"),
        (sure, "dim"),
        f"  truth: {one.question.truth} ",
        (mark, style),
        (f" {one.milliseconds or 0:.0f} ms", "dim"),
    )
