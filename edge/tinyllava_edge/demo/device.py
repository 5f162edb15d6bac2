"""The outside of the gateway: a device that publishes frames and readings, and asks.

It is on purpose a plain MQTT client: everything it does, ``mosquitto_pub`` can do.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tinyllava_edge.connection import send_at_once
from tinyllava_edge.errors import TinyLlavaError
from tinyllava_edge.messages import Answer

CONNECT_TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class TimedAnswer:
    """An answer and the milliseconds from publishing the ask to receiving it."""

    answer: Answer
    milliseconds: float


class Device:
    """A camera, some sensors and a client that asks, on one MQTT 3.1.1 connection."""

    def __init__(self, host: str, port: int, base: str, *, name: str = "device") -> None:
        self._base = base
        self._host = host
        self._port = port
        self._name = name
        self._numbers = itertools.count(1)
        self._subscribed = threading.Event()
        self._arrived: queue.Queue[tuple[float, MQTTMessage]] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name)
        self._client.on_message = self._take
        self._client.on_socket_open = send_at_once

    def start(self) -> None:
        """Connect and subscribe to the answers. Raises ``TinyLlavaError`` where it cannot."""
        self._client.on_connect = lambda client, *_: client.subscribe(f"{self._base}/answer/+", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        try:
            self._client.connect(self._host, self._port)
        except OSError as error:
            raise TinyLlavaError(f"broker {self._host}:{self._port}: {error}") from None
        self._client.loop_start()
        if not self._subscribed.wait(CONNECT_TIMEOUT_S):
            raise TinyLlavaError(f"broker {self._host}:{self._port}: no answer to SUBSCRIBE")

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def send_frame(self, camera: str, picture: bytes) -> None:
        """Publish a picture as the camera's latest frame."""
        self._publish(f"{self._base}/camera/{camera}/frame", picture)

    def send_reading(self, sensor: str, value: str) -> None:
        """Publish a sensor's value."""
        self._publish(f"{self._base}/sensor/{sensor}", value.encode())

    def ask(self, asks: Sequence[dict[str, Any]], timeout_s: float) -> list[TimedAnswer | None]:
        """Publish asks, each with an id of its own, and wait for their answers.

        In order; None for one that did not come within ``timeout_s``.
        """
        sent_s: dict[str, float] = {}
        for ask in asks:
            ask_id = f"{self._name}-{next(self._numbers)}"
            sent_s[ask_id] = time.monotonic()
            self._publish(f"{self._base}/ask", json.dumps({"id": ask_id, **ask}).encode())
        found = self._collect(sent_s, time.monotonic() + timeout_s)
        return [found.get(ask_id) for ask_id in sent_s]

    def _collect(self, sent_s: dict[str, float], end_s: float) -> dict[str, TimedAnswer]:
        found: dict[str, TimedAnswer] = {}
        while len(found) < len(sent_s) and time.monotonic() < end_s:
            try:
                at_s, message = self._arrived.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                break
            answer = Answer.model_validate_json(message.payload)
            if answer.id in sent_s:
                milliseconds = (at_s - sent_s[answer.id]) * 1000
                found.setdefault(answer.id, TimedAnswer(answer, milliseconds))
        return found

    def _publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1 and wait until the broker has it."""
        info = self._client.publish(topic, payload, qos=1)
        info.wait_for_publish(PUBLISH_TIMEOUT_S)
        if not info.is_published():
            raise TinyLlavaError(f"broker {self._host}:{self._port}: {topic} was not confirmed")

    def _take(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        # amqtt now and then delivers a topic that nobody subscribed to.
        if message.topic.startswith(f"{self._base}/answer/"):
            self._arrived.put((time.monotonic(), message))
