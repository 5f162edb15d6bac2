"""The topics of one gateway: what it listens to, what it publishes, where it may reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.errors import AskError

MAX_REPLY_TOPIC_BYTES = 256
MAX_REPLY_TOPIC_LEVELS = 32
MAX_NAME_CHARS = 64


@dataclass(frozen=True)
class Destination:
    """What an incoming message is for; ``name`` is the camera or the sensor."""

    kind: Literal["ask", "frame", "reading"]
    name: str = ""


class Topics:
    """Names and matches topics by the configuration."""

    def __init__(self, config: GatewayConfig) -> None:
        base = config.base
        self.status = f"{base}/status"
        self.health = f"{base}/health"
        self.ask = f"{base}/ask"
        self._answer = f"{base}/answer/"
        self._camera = f"{base}/camera/"
        self._sensor = f"{base}/sensor/"
        self._prefixes = (f"{base}/", *config.limits.reply_prefixes)
        self._routes = self._mapped(config)

    def answer(self, ask_id: str) -> str:
        """Where an answer goes unless the ask says otherwise."""
        return self._answer + ask_id

    def subscriptions(self) -> dict[str, int]:
        """Topic filters with their QoS. Frames use 0: a late frame is worth nothing."""
        qos = {"ask": 1, "reading": 1, "frame": 0}
        return {pattern: qos[destination.kind] for pattern, destination in self._routes}

    def route(self, topic: str) -> list[Destination]:
        """What a message on this topic is for: nothing, or as many as were mapped to it."""
        found = (
            Destination(destination.kind, destination.name or self._name_in(topic, destination))
            for pattern, destination in self._routes
            if matches(pattern, topic)
        )
        return [to for to in found if to.kind == "ask" or 0 < len(to.name) <= MAX_NAME_CHARS]

    def reply_topic(self, wanted: str | None, ask_id: str) -> str:
        """Where to answer. Raises ``AskError`` where the configuration does not allow it.

        Topics that the gateway listens to, or keeps its state on, are never allowed: an asker
        could make it talk to itself or lie about itself.
        """
        if wanted is None:
            return self.answer(ask_id)
        allowed = wanted.startswith(self._prefixes) and is_topic_name(wanted)
        taken = wanted in (self.status, self.health) or bool(self.route(wanted))
        if allowed and not taken:
            return wanted
        raise AskError(
            "reply_to_not_allowed",
            f"answers may not go to {wanted[:80]!r}; allowed prefixes: {', '.join(self._prefixes)}",
        )

    def _name_in(self, topic: str, destination: Destination) -> str:
        """The level that names the camera or sensor where the configuration names none."""
        if destination.kind == "ask":
            return ""
        start = self._camera if destination.kind == "frame" else self._sensor
        name = topic.removeprefix(start).split("/")[0]
        return name if name.isprintable() else ""

    def _mapped(self, config: GatewayConfig) -> list[tuple[str, Destination]]:
        routes = [(self.ask, Destination("ask"))]
        if not config.cameras:
            routes.append((f"{self._camera}+/frame", Destination("frame")))
        for name, camera in config.cameras.items():
            topic = camera.topic or f"{self._camera}{name}/frame"
            routes.append((topic, Destination("frame", name)))
        if not config.sensors:
            routes.append((f"{self._sensor}+", Destination("reading")))
        for name, sensor in config.sensors.items():
            routes.append((sensor.topic or f"{self._sensor}{name}", Destination("reading", name)))
        return routes


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic matches a filter, as MQTT 5 section 4.7 says."""
    wanted, levels = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, part in enumerate(wanted):
        if part == "#":
            return True
        if position >= len(levels) or part not in ("+", levels[position]):
            return False
    return len(wanted) == len(levels)


def is_topic_name(topic: str) -> bool:
    """Whether one may publish to this topic: no wildcards, nothing unprintable, not too long.

    Nor too deep: brokers end the connection of whoever publishes to hundreds of levels.
    """
    return (
        0 < len(topic.encode("utf-8", "replace")) <= MAX_REPLY_TOPIC_BYTES
        and topic.count("/") < MAX_REPLY_TOPIC_LEVELS
        and topic.isprintable()
        and not topic.startswith("$")
        and "+" not in topic
        and "#" not in topic
    )
