"""Messages on their way out, kept until the broker has confirmed them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

CONFIRMATION_POLL_S = 0.02


@dataclass(frozen=True)
class Outgoing:
    """A message to publish with QoS 1. ``correlation`` travels only where MQTT 5 is spoken."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None


class Receipt(Protocol):
    """What a connection gives for a message it has taken."""

    def is_published(self) -> bool:
        """Whether the broker has confirmed it."""


class Connection(Protocol):
    """One connection to a broker; a later one is another object."""

    def send(self, message: Outgoing) -> Receipt | None:
        """Hand a message to the network; None where the connection is gone."""


@dataclass(eq=False)
class _Entry:
    message: Outgoing
    state: bool
    sent_on: Connection | None = None
    receipt: Receipt | None = None

    def confirmed(self) -> bool:
        return self.receipt is not None and self.receipt.is_published()


class Outbox:
    """Sends over whatever connection there is, and again over the next one until confirmed.

    So a message is delivered at least once. A *state* message replaces the one before it on its
    topic, and is sent on every new connection: a broker that forgot it learns it again.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._connection: Connection | None = None

    def put(self, message: Outgoing) -> bool:
        """Take a message to deliver; False where ``capacity`` are waiting already."""
        with self._lock:
            self._entries = [e for e in self._entries if e.state or not e.confirmed()]
            if sum(not e.state for e in self._entries) >= self._capacity:
                return False
            self._entries.append(_Entry(message, state=False))
        self._send_waiting()
        return True

    def put_state(self, message: Outgoing) -> None:
        """Take a message that stands for its topic until the next one."""
        with self._lock:
            self._entries = [
                e for e in self._entries if not (e.state and e.message.topic == message.topic)
            ]
            self._entries.append(_Entry(message, state=True))
        self._send_waiting()

    def connect(self, connection: Connection) -> None:
        """Use this connection from now on; sends everything that is not confirmed."""
        with self._lock:
            self._connection = connection
        self._send_waiting()

    def disconnect(self) -> None:
        """Keep everything until the next connection."""
        with self._lock:
            self._connection = None

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is confirmed; False where it is not in time."""
        end_s = time.monotonic() + timeout_s
        while self.waiting():
            if time.monotonic() >= end_s:
                return False
            time.sleep(CONFIRMATION_POLL_S)
        return True

    def waiting(self) -> int:
        """How many messages the broker has not confirmed."""
        with self._lock:
            return sum(not entry.confirmed() for entry in self._entries)

    def _send_waiting(self) -> None:
        """Sending happens outside the lock: the network's own callbacks end up here too."""
        with self._lock:
            connection = self._connection
            if connection is None:
                return
            unsent = [e for e in self._entries if e.sent_on is not connection]
            unsent = [e for e in unsent if e.state or not e.confirmed()]
            for entry in unsent:
                entry.sent_on, entry.receipt = connection, None
        for entry in unsent:
            entry.receipt = connection.send(entry.message)
