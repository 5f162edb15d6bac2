"""Which asks are open and how the closed ones ended: the promise of exactly one outcome."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

from tinyllava_edge.messages import Answer
from tinyllava_edge.schedule import Pending


class Ledger:
    """Opens every ask once, closes it once, and remembers the last ``remembered`` answers."""

    def __init__(self, remembered: int) -> None:
        self._lock = threading.Lock()
        self._remembered = remembered
        self._open: dict[str, Pending] = {}
        self._closed: OrderedDict[str, bytes] = OrderedDict()
        self._outcomes: Counter[str] = Counter()
        self._accepted = 0

    def is_open(self, ask_id: str) -> bool:
        """Whether an ask of this id was accepted and has no outcome yet."""
        with self._lock:
            return ask_id in self._open

    def answer_to(self, ask_id: str) -> bytes | None:
        """The answer once given to this id, if it is still remembered."""
        with self._lock:
            if ask_id in self._closed:
                self._closed.move_to_end(ask_id)
            return self._closed.get(ask_id)

    def open(self, pending: Pending) -> None:
        """Accept an ask: from here on it is owed an outcome."""
        with self._lock:
            self._open[pending.ask.id] = pending
            self._accepted += 1

    def forget(self, pending: Pending) -> None:
        """Take an acceptance back before anybody could have known of it."""
        with self._lock:
            if self._open.pop(pending.ask.id, None) is not None:
                self._accepted -= 1

    def close(self, answer: Answer) -> bytes | None:
        """Settle an open ask: the payload to publish, or None where it is settled already."""
        with self._lock:
            if self._open.pop(answer.id, None) is None:
                return None
            payload = answer.to_bytes()
            self._closed[answer.id] = payload
            while len(self._closed) > self._remembered:
                self._closed.popitem(last=False)
            self._outcomes[answer.outcome] += 1
            return payload

    def all_open(self) -> list[Pending]:
        """Every ask that still has no outcome, oldest first."""
        with self._lock:
            return list(self._open.values())

    def totals(self) -> dict[str, int]:
        """How many asks were accepted and how many ended in each outcome."""
        with self._lock:
            return {"accepted": self._accepted, **dict(sorted(self._outcomes.items()))}
