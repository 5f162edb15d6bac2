"""The link to the broker: connects, falls back to 3.1.1, comes back, loses nothing accepted.

Every connection is a fresh one. What must outlive it waits in the ``Outbox``, not in paho, whose
sessions end with its client.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from random import uniform

from tinyllava_edge.config import MqttSettings, TlsSettings
from tinyllava_edge.connection import BrokerConnection, End, Peer, Protocol
from tinyllava_edge.errors import ConfigError
from tinyllava_edge.outbox import Outbox

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 15.0
HANG_UPS = 2


class MqttLink:
    """Keeps one connection to the broker alive, in threads of its own."""

    def __init__(self, peer: Peer, outbox: Outbox, *, protocol: str = "auto") -> None:
        self._peer = peer
        self._outbox = outbox
        self._protocols: tuple[Protocol, ...] = ("5", "3.1.1")
        if protocol != "auto":
            self._protocols = ("5" if protocol == "5" else "3.1.1",)
        self._choice = 0
        self._hang_ups = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt-link", daemon=True)
        self._lock = threading.Lock()
        self._current: BrokerConnection | None = None

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Wait for confirmations while there is a connection, then leave with a DISCONNECT."""
        if self.protocol is not None and not self._outbox.flush(timeout_s):
            logger.warning("%d messages were not confirmed", self._outbox.waiting())
        with self._lock:
            self._stopping.set()
            if self._current is not None:
                self._current.close()
        self._thread.join(timeout_s)

    @property
    def protocol(self) -> Protocol | None:
        """The MQTT version spoken now, None while there is no connection."""
        current = self._current
        return current.protocol if current is not None and current.ready else None

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while (connection := self._next()) is not None:
            end = connection.live()
            self._outbox.disconnect()
            self._current = None
            if end in ("lost", "wrong protocol", "silent"):
                delay_s = FIRST_DELAY_S
            self._choose_protocol(end)
            if not self._stopping.is_set():
                logger.info("connection %s; trying again in %.1f s", end, delay_s)
            # Spread out, so that a hundred gateways do not return to a new broker in one instant.
            self._stopping.wait(delay_s * uniform(0.8, 1.2))  # noqa: S311 - no secret
            delay_s = min(LONGEST_DELAY_S, delay_s * 2)

    def _next(self) -> BrokerConnection | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._current = BrokerConnection(
                self._peer, self._protocols[self._choice], self._outbox.connect
            )
            return self._current

    def _choose_protocol(self, end: End) -> None:
        """Every new connection starts with MQTT 5; a broker that cannot read it gets the other.

        Such a broker refuses, waits for more, or hangs up; but one hang-up may be a broker that
        is just going down, and falling back then would cost its clients their response topics.
        """
        self._hang_ups = self._hang_ups + 1 if end == "hung up" else 0
        if end == "lost":
            self._choice = 0
        elif end in ("wrong protocol", "silent") or self._hang_ups >= HANG_UPS:
            self._choice = (self._choice + 1) % len(self._protocols)
            self._hang_ups = 0


def read_password(settings: MqttSettings) -> str | None:
    """The broker's password from the environment. Raises ``ConfigError`` where it is not set."""
    if settings.password_env is None:
        return None
    password = os.environ.get(settings.password_env)
    if password is None:
        raise ConfigError(
            f"mqtt.password_env: environment variable {settings.password_env} is not set; set it "
            "to the broker's password"
        )
    return password


def tls_context(settings: TlsSettings | None) -> ssl.SSLContext | None:
    """The context for an encrypted connection, None for a plain one. Raises ``ConfigError``."""
    if settings is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        raise ConfigError(f"mqtt.tls: files cannot be used ({error}); check the paths") from None
    return context
