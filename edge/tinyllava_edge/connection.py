"""One connection to a broker on paho-mqtt, from CONNECT to its end. Callbacks only hand over."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tinyllava_edge.outbox import Outgoing

logger = logging.getLogger(__name__)

Protocol = Literal["5", "3.1.1"]
End = Literal["unreachable", "hung up", "silent", "wrong protocol", "refused", "lost"]
_VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
CONNACK_TIMEOUT_S = 3.0
_UNSUPPORTED_PROTOCOL = "Unsupported protocol version"


@dataclass(frozen=True)
class Incoming:
    """A message as it came. The last two are MQTT 5's and None without it."""

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True)
class Peer:
    """What every connection to the same broker has in common."""

    host: str
    port: int
    keepalive_s: int
    client_id: str
    will: Outgoing | None
    subscriptions: Mapping[str, int]
    on_message: Callable[[Incoming], None]
    largest_packet_bytes: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


class BrokerConnection:
    """A paho client that connects once and never again."""

    def __init__(
        self, peer: Peer, protocol: Protocol, on_ready: Callable[[BrokerConnection], None]
    ) -> None:
        self.protocol = protocol
        self.ready = False
        self._peer = peer
        self._on_ready = on_ready
        self._refusal: End | None = None
        self._greeted = False
        self._answered = threading.Event()
        self._closed = threading.Event()
        self._client = self._make_client()

    def live(self) -> End:
        """Connect and stay until the end, whose kind it returns.

        A broker that hangs up or stays silent instead of a CONNACK may be one that cannot read
        MQTT 5; both are told apart from a broker that refuses us in words.
        """
        peer = self._peer
        properties = None
        if self.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = peer.largest_packet_bytes
        try:
            self._client.connect(peer.host, peer.port, peer.keepalive_s, properties=properties)
        except (OSError, ValueError) as error:
            logger.info("broker %s:%d: %s", peer.host, peer.port, error)
            return "unreachable"
        self._client.loop_start()
        hung_up = self._answered.wait(CONNACK_TIMEOUT_S) and not self._greeted
        if self._greeted:
            self._closed.wait()
        else:
            self._client.disconnect()
        self._client.loop_stop()
        self.ready = False
        if self._greeted:
            return "lost"
        return self._refusal or ("hung up" if hung_up else "silent")

    def close(self) -> None:
        """Say goodbye, so that the broker keeps the will to itself."""
        self._client.disconnect()
        self._end()

    def send(self, message: Outgoing) -> MQTTMessageInfo | None:
        """Publish with QoS 1; None where paho does not take it."""
        properties = None
        if self.protocol == "5" and message.correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = message.correlation
        info = self._client.publish(
            message.topic, message.payload, qos=1, retain=message.retain, properties=properties
        )
        return info if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def _make_client(self) -> Client:
        peer = self._peer
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=peer.client_id,
            protocol=_VERSIONS[self.protocol],
            reconnect_on_failure=False,
        )
        if peer.will is not None:
            client.will_set(peer.will.topic, peer.will.payload, qos=1, retain=peer.will.retain)
        if peer.username is not None:
            client.username_pw_set(peer.username, peer.password)
        if peer.tls is not None:
            client.tls_set_context(peer.tls)
        client.on_socket_open = send_at_once
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        return client

    def _connected(
        self,
        client: Client,
        _data: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            wrong = reason.getName() == _UNSUPPORTED_PROTOCOL
            self._refusal = "wrong protocol" if wrong else "refused"
            level = logging.INFO if wrong else logging.WARNING
            logger.log(level, "broker refuses MQTT %s: %s", self.protocol, reason)
            self._answered.set()
            return
        self._greeted = True
        self._answered.set()
        wanted = self._peer.subscriptions.items()
        if not wanted:
            self._become_ready()
        elif self.protocol == "5":
            client.subscribe([(topic, SubscribeOptions(qos=qos)) for topic, qos in wanted])
        else:
            client.subscribe(list(wanted))

    def _subscribed(
        self,
        _client: Client,
        _data: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        for topic, reason in zip(self._peer.subscriptions, reasons, strict=False):
            if reason.is_failure:
                logger.error("broker refuses the subscription to %s: %s", topic, reason)
        self._become_ready()

    def _become_ready(self) -> None:
        """From here on messages flow both ways."""
        self.ready = True
        self._on_ready(self)

    def _disconnected(
        self,
        _client: Client,
        _data: Any,
        _flags: DisconnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._closed.set()
        self._answered.set()

    def _received(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            properties = message.properties
            self._peer.on_message(
                Incoming(
                    message.topic,
                    bytes(message.payload),
                    message.retain,
                    getattr(properties, "ResponseTopic", None),
                    getattr(properties, "CorrelationData", None),
                )
            )
        except Exception:
            # The network thread would die of it, and every later message with it.
            logger.exception("a message could not be taken")


def send_at_once(_client: Client, _data: Any, connection: Any) -> None:
    """Switch off Nagle's algorithm: with delayed ACKs it costs small answers 40 ms each."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
