"""Progress of long work, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")

_LINE_EVERY_S = 20.0


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Pass items through and show how far it is."""
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True)) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    last = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > _LINE_EVERY_S or number == total:
            last = time.monotonic()
            _line(f"{what}: {number}/{total}")


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class StepReport:
    """Progress of a training stage: step, loss, steps a second and the time that is left."""

    def __init__(self, what: str, first: int, steps: int) -> None:
        self._what, self._first, self._steps = what, first, steps
        self._done = first
        self._began = self._last = time.monotonic()
        self._bar = Progress(console=Console(stderr=True)) if sys.stderr.isatty() else None
        self._smooth: float | None = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._steps, completed=self._first)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since this process began the stage."""
        return time.monotonic() - self._began

    def advance(self, loss: float) -> None:
        """One step is done."""
        self._done += 1
        self._smooth = loss if self._smooth is None else 0.95 * self._smooth + 0.05 * loss
        if self._bar is not None:
            text = f"{self._what} loss {self._smooth:.3f}"
            self._bar.update(self._task, completed=self._done, description=text)
            return
        if time.monotonic() - self._last > _LINE_EVERY_S or self._done == self._steps:
            self._last = time.monotonic()
            pace = self.seconds / (self._done - self._first)
            left = pace * (self._steps - self._done)
            _line(
                f"{self._what}: {self._done}/{self._steps} loss {self._smooth:.3f} "
                f"{pace:.2f} s/step, {left / 60:.0f} min left"
            )
