"""The asks that wait for the model: most urgent first, those on one picture together."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import count

from tinyllava_edge.messages import Ask

_ARRIVALS = count()


@dataclass(frozen=True)
class ReplyTo:
    """Where the answer goes; ``correlation`` is MQTT 5's, handed back as it came."""

    topic: str
    correlation: bytes | None = None


@dataclass(frozen=True)
class Pending:
    """An accepted ask. ``picture`` is what came with it, ``key`` what asks are grouped by."""

    ask: Ask
    reply_to: ReplyTo
    key: str
    picture: bytes | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    arrival: int = field(default_factory=lambda: next(_ARRIVALS))

    @property
    def deadline_s(self) -> float:
        """The monotonic time by which the answer must be out; infinite without a deadline."""
        if self.ask.deadline_ms is None:
            return float("inf")
        return self.arrived_s + self.ask.deadline_ms / 1000

    @property
    def rank(self) -> tuple[int, float, int]:
        """Smaller goes first: priority, then the earliest deadline, then arrival."""
        return (-self.ask.priority, self.deadline_s, self.arrival)

    def waited_ms(self) -> float:
        """Milliseconds since the ask arrived."""
        return (time.monotonic() - self.arrived_s) * 1000


class AskQueue:
    """A bounded queue between the thread that reads asks and the one that answers them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: list[Pending] = []

    def put(self, pending: Pending) -> bool:
        """Add an ask; False where the queue is full."""
        with self._changed:
            if len(self._waiting) >= self._capacity:
                return False
            self._waiting.append(pending)
            self._changed.notify()
            return True

    def take_group(self, size: int, timeout_s: float) -> list[Pending]:
        """The most urgent ask and up to ``size - 1`` others on its picture, in order of rank.

        Waits up to ``timeout_s``; the empty list where nothing came.
        """
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout_s)
            if not self._waiting:
                return []
            self._waiting.sort(key=lambda pending: pending.rank)
            key = self._waiting[0].key
            group = [pending for pending in self._waiting if pending.key == key][:size]
            self._remove(group)
            return group

    def take_expired(self) -> list[Pending]:
        """Remove and return the asks whose deadline has passed."""
        now_s = time.monotonic()
        with self._changed:
            expired = [pending for pending in self._waiting if pending.deadline_s <= now_s]
            self._remove(expired)
            return expired

    def take_all(self) -> list[Pending]:
        """Empty the queue."""
        with self._changed:
            waiting, self._waiting = self._waiting, []
            return waiting

    def wake(self) -> None:
        """Let a waiting ``take_group`` return at once."""
        with self._changed:
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting)

    def _remove(self, gone: list[Pending]) -> None:
        arrivals = {pending.arrival for pending in gone}
        self._waiting = [p for p in self._waiting if p.arrival not in arrivals]
