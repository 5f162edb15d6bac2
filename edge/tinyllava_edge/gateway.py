"""The gateway: frames, readings and asks in over MQTT, one terminal outcome per ask out.

    network thread -> Intake -> AskQueue -> Worker (engine) -> Ledger -> Outbox -> network thread

Promises, as long as this process lives: an accepted ask gets exactly one outcome, delivered at
least once; a repeated id never costs a second inference; everything let go is counted by cause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tinyllava_edge.answering import Answerer
from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.connection import Peer
from tinyllava_edge.drops import Drops
from tinyllava_edge.engines.contract import Engine
from tinyllava_edge.errors import TinyLlavaError
from tinyllava_edge.frames import FrameStore
from tinyllava_edge.health import Latencies, health_payload
from tinyllava_edge.intake import Intake
from tinyllava_edge.ledger import Ledger
from tinyllava_edge.messages import Answer, failure
from tinyllava_edge.mqtt import MqttLink, read_password, tls_context
from tinyllava_edge.outbox import Outbox, Outgoing
from tinyllava_edge.pictures import PictureLimits
from tinyllava_edge.schedule import AskQueue, Pending
from tinyllava_edge.sensors import SensorBoard, SensorForm
from tinyllava_edge.topics import Topics
from tinyllava_edge.worker import Worker

logger = logging.getLogger(__name__)

TICK_S = 0.1
PUBLISH_RETRY_S = 0.05
ENGINE_EXIT_S = 5.0


class Gateway:
    """One gateway. The constructor only wires; ``start`` does and ``stop`` undoes."""

    def __init__(self, config: GatewayConfig, open_engine: Callable[[], Engine]) -> None:
        limits = config.limits
        self._config = config
        self._topics = Topics(config)
        self._drops = Drops()
        self._ledger = Ledger(limits.remembered_answers)
        self._asks = AskQueue(limits.queue)
        self._outbox = Outbox(limits.outbox)
        self._latencies = Latencies()
        self._frames = FrameStore(
            config.cameras,
            self._drops,
            max_bytes=limits.picture_bytes,
            max_cameras=limits.cameras,
        )
        self._sensors = SensorBoard(_forms(config), self._drops, max_sensors=limits.sensors)
        self._intake = Intake(
            config,
            self._topics,
            frames=self._frames,
            sensors=self._sensors,
            asks=self._asks,
            ledger=self._ledger,
            drops=self._drops,
            publish=self._publish,
        )
        self._worker = Worker(
            open_engine,
            self._make_answerer,
            self._asks,
            self._finish,
            group=limits.group,
            self_test_s=config.self_test_s,
        )
        self._link = MqttLink(self._peer(), self._outbox, protocol=config.mqtt.protocol)
        self._watch = threading.Thread(target=self._watch_over, name="watch", daemon=True)
        self._stopping = threading.Event()
        self._started_s = time.monotonic()
        self._health_due_s = 0.0
        self._status: str | None = None

    def start(self) -> None:
        """Connect to the broker and open the engine, both in the background."""
        self._intake.start()
        self._set_status("offline")
        self._link.start()
        self._worker.start()
        self._watch.start()

    def wait_online(self, timeout_s: float) -> bool:
        """Wait until asks can be answered. Raises what kept the engine from opening."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            self._worker.wait_opened(max(0.0, end_s - time.monotonic()))
            if self._status == "online" and self._link.protocol and not self._outbox.waiting():
                return True
            time.sleep(TICK_S / 2)
        return False

    def stop(self) -> None:
        """Refuse new asks, finish the accepted ones within ``drain_s``, say goodbye."""
        self._intake.refuse_asks()
        self._drain()
        self._worker.stop(0.0 if self._ledger.all_open() else ENGINE_EXIT_S)
        # From here on nobody waits for room in an outbox that a hanging broker keeps full.
        self._stopping.set()
        for pending in self._ledger.all_open():
            message = "the gateway stopped before it could answer; ask again"
            self._finish(pending, failure(pending.ask.id, "stopped", message, pending.ask.camera))
        self._watch.join(ENGINE_EXIT_S)
        self._set_status("offline")
        self._publish_health()
        self._link.stop()
        self._intake.stop()
        self._worker.stop(ENGINE_EXIT_S)

    @property
    def failure(self) -> TinyLlavaError | None:
        """Why the engine could not be opened; None while it can."""
        return self._worker.failure

    @property
    def protocol(self) -> str | None:
        """The MQTT version spoken with the broker now, None without a connection."""
        return self._link.protocol

    def _peer(self) -> Peer:
        mqtt = self._config.mqtt
        return Peer(
            host=mqtt.host,
            port=mqtt.port,
            keepalive_s=mqtt.keepalive_s,
            client_id=mqtt.client_id or f"tinyllava-{self._config.gateway}",
            will=Outgoing(self._topics.status, b"offline", retain=True),
            subscriptions=self._topics.subscriptions(),
            on_message=self._intake.deliver,
            # Far above what is accepted, so that what is only too large is still counted here.
            largest_packet_bytes=4 * self._config.limits.picture_bytes,
            username=mqtt.username,
            password=read_password(mqtt),
            tls=tls_context(mqtt.tls),
        )

    def _make_answerer(self, engine: Engine) -> Answerer:
        limits = self._config.limits
        pictures = PictureLimits(max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)
        return Answerer(engine, self._frames, self._sensors, pictures)

    def _finish(self, pending: Pending, answer: Answer) -> None:
        """Settle an ask once, and publish how."""
        payload = self._ledger.close(answer)
        if payload is None:
            return
        if answer.outcome == "ok":
            self._latencies.add(pending.waited_ms())
        elif answer.error is not None:
            self._drops.count(f"ask_{answer.error.code}", answer.error.message)
        reply_to = pending.reply_to
        self._publish(Outgoing(reply_to.topic, payload, correlation=reply_to.correlation))

    def _publish(self, message: Outgoing) -> None:
        """Hand over to the outbox; where it is full, wait: then nobody is there to ask more."""
        while not self._outbox.put(message):
            if self._stopping.wait(PUBLISH_RETRY_S):
                self._drops.count("answer_undelivered", message.topic)
                return

    def _drain(self) -> None:
        end_s = time.monotonic() + self._config.drain_s
        while self._ledger.all_open() and time.monotonic() < end_s and self.failure is None:
            time.sleep(TICK_S / 4)

    def _watch_over(self) -> None:
        """Expire what waits too long, and keep status and health true."""
        while not self._stopping.wait(TICK_S):
            self._tick()

    def _tick(self) -> None:
        try:
            self._expire()
            self._report()
        except Exception:
            # The boundary of the watch's thread: without it nobody would hear of an expiry again.
            logger.exception("a round of the watch failed")

    def _expire(self) -> None:
        for pending in self._asks.take_expired():
            message = f"deadline of {pending.ask.deadline_ms} ms has passed in the queue"
            answer = failure(pending.ask.id, "deadline", message, pending.ask.camera)
            self._finish(pending, answer)

    def _report(self) -> None:
        recent = self._worker.since_success_s() <= self._config.online_within_s
        online = recent and self._worker.state == "ready"
        changed = self._set_status("online" if online else "offline")
        if changed or time.monotonic() >= self._health_due_s:
            self._health_due_s = time.monotonic() + self._config.health_s
            self._publish_health()

    def _set_status(self, status: str) -> bool:
        """Publish the status where it is another one; whether it was."""
        if status == self._status:
            return False
        self._outbox.put_state(Outgoing(self._topics.status, status.encode(), retain=True))
        logger.info("status %s", status)
        self._status = status
        return True

    def _publish_health(self) -> None:
        facts = {
            "status": self._status,
            "worker": self._worker.state,
            "model": self._worker.model,
            "mqtt": self._link.protocol,
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "queue": len(self._asks),
            "unconfirmed": self._outbox.waiting(),
            "asks": self._ledger.totals(),
            "latency_ms": self._latencies.quantiles(),
            "cameras": self._frames.state(),
            "sensors": self._sensors.names(),
            "drops": self._drops.snapshot(),
        }
        payload = health_payload(facts)
        self._outbox.put_state(Outgoing(self._topics.health, payload, retain=True))


def _forms(config: GatewayConfig) -> dict[str, SensorForm]:
    return {
        name: SensorForm(sensor.unit, sensor.pointer, sensor.stale_after_s)
        for name, sensor in config.sensors.items()
    }
