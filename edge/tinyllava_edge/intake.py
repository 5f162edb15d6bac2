"""From messages to frames, readings and accepted asks; refuses or counts everything else."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.connection import Incoming
from tinyllava_edge.drops import Drops
from tinyllava_edge.errors import AskError
from tinyllava_edge.frames import FrameStore
from tinyllava_edge.ledger import Ledger
from tinyllava_edge.messages import Ask, failure, parse_ask, picture_bytes, read_id
from tinyllava_edge.outbox import Outgoing
from tinyllava_edge.pictures import picture_key
from tinyllava_edge.schedule import AskQueue, Pending, ReplyTo
from tinyllava_edge.sensors import SensorBoard
from tinyllava_edge.topics import Topics

logger = logging.getLogger(__name__)

ASK_OVERHEAD_BYTES = 256 << 10


class Intake:
    """Reads messages in a thread of its own, so that the network never waits for it."""

    def __init__(
        self,
        config: GatewayConfig,
        topics: Topics,
        *,
        frames: FrameStore,
        sensors: SensorBoard,
        asks: AskQueue,
        ledger: Ledger,
        drops: Drops,
        publish: Callable[[Outgoing], None],
    ) -> None:
        self._limits = config.limits
        self._topics = topics
        self._frames = frames
        self._sensors = sensors
        self._asks = asks
        self._ledger = ledger
        self._drops = drops
        self._publish = publish
        self._inbox: queue.Queue[Incoming | None] = queue.Queue(config.limits.inbox)
        self._inbox_bytes = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def refuse_asks(self) -> None:
        """From now on every new ask is rejected; frames and readings are still taken."""
        self._closing.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Read what is in the inbox and end."""
        self._inbox.put(None)
        self._thread.join(timeout_s)

    def deliver(self, message: Incoming) -> None:
        """Take a message from the network thread: never waits, never parses.

        Frames go to their slots at once, so that a flood of them cannot push out an ask.
        """
        destinations = self._topics.route(message.topic)
        if not destinations:
            self._drops.count("topic_unknown", message.topic)
        for destination in destinations:
            if destination.kind == "frame":
                self._take_frame(destination.name, message)
        if any(destination.kind != "frame" for destination in destinations):
            self._enqueue(message)

    def _enqueue(self, message: Incoming) -> None:
        with self._lock:
            if self._inbox_bytes + len(message.payload) > self._limits.inbox_bytes:
                self._drops.count("inbox_full", message.topic)
                return
            try:
                self._inbox.put_nowait(message)
            except queue.Full:
                self._drops.count("inbox_full", message.topic)
                return
            self._inbox_bytes += len(message.payload)

    def _run(self) -> None:
        while (message := self._inbox.get()) is not None:
            with self._lock:
                self._inbox_bytes -= len(message.payload)
            try:
                self._read(message)
            except Exception:
                # The boundary of this thread: one message must not end all reading.
                logger.exception("message on %s could not be read", message.topic)
                self._drops.count("unreadable")

    def _read(self, message: Incoming) -> None:
        for destination in self._topics.route(message.topic):
            if destination.kind == "reading":
                self._sensors.put(destination.name, message.payload, retained=message.retained)
            elif destination.kind == "ask":
                self._read_ask(message)

    def _take_frame(self, camera: str, message: Incoming) -> None:
        """A retained frame is of unknown age, so nobody may be told that it is new."""
        if message.retained:
            self._drops.count("frame_retained", message.topic)
            return
        self._frames.put(camera, message.payload)

    def _read_ask(self, message: Incoming) -> None:
        try:
            self._take_ask(message)
        except AskError as error:
            self._refuse(message, error)

    def _take_ask(self, message: Incoming) -> None:
        largest = self._limits.picture_bytes * 4 // 3 + ASK_OVERHEAD_BYTES
        if len(message.payload) > largest:
            raise AskError(
                "ask_too_large", f"ask of {len(message.payload)} bytes, the limit is {largest}"
            )
        ask = parse_ask(message.payload)
        reply_to = self._reply_to(message, ask.reply_to, ask.id)
        if self._ledger.is_open(ask.id):
            self._drops.count("ask_repeated_while_open")
            return
        answer = self._ledger.answer_to(ask.id)
        if answer is not None:
            self._drops.count("ask_repeated")
            self._publish(Outgoing(reply_to.topic, answer, correlation=reply_to.correlation))
            return
        self._check_taken(message, ask)
        self._accept(ask, reply_to)

    def _check_taken(self, message: Incoming, ask: Ask) -> None:
        if message.retained:
            raise AskError("retained", "an ask may not be a retained message; publish without it")
        if self._closing.is_set():
            raise AskError("stopping", "the gateway is stopping; ask again later")
        if len(ask.texts) > self._limits.questions:
            raise AskError(
                "too_many_questions",
                f"{len(ask.texts)} questions, the limit is {self._limits.questions}",
            )
        if ask.camera is not None and not self._frames.knows(ask.camera):
            known = ", ".join(list(self._frames.state())[:20]) or "none"
            raise AskError("unknown_camera", f"no camera {ask.camera!r}; cameras known: {known}")

    def _accept(self, ask: Ask, reply_to: ReplyTo) -> None:
        picture = None if ask.image is None else picture_bytes(ask)
        key = f"camera/{ask.camera}" if picture is None else f"image/{picture_key(picture)}"
        # What was decoded need not be kept twice.
        pending = Pending(ask.model_copy(update={"image": None}), reply_to, key, picture)
        self._ledger.open(pending)
        if not self._asks.put(pending):
            self._ledger.forget(pending)
            raise AskError(
                "queue_full", f"{self._limits.queue} asks are waiting already; ask again later"
            )

    def _reply_to(self, message: Incoming, wanted: str | None, ask_id: str) -> ReplyTo:
        """MQTT 5's response topic wins over the field in the ask."""
        topic = self._topics.reply_topic(message.response_topic or wanted, ask_id)
        return ReplyTo(topic, message.correlation)

    def _refuse(self, message: Incoming, error: AskError) -> None:
        """Tell the asker where an id can be read, and count the refusal in any case."""
        cause = error.code if error.code.startswith("ask_") else f"ask_{error.code}"
        ask_id = read_id(message.payload) if error.code != "ask_too_large" else None
        self._drops.count(cause, str(error))
        if ask_id is None:
            return
        try:
            reply_to = self._reply_to(message, None, ask_id)
        except AskError:
            reply_to = ReplyTo(self._topics.answer(ask_id))
        answer = failure(ask_id, error.code, str(error))
        self._publish(Outgoing(reply_to.topic, answer.to_bytes(), correlation=reply_to.correlation))
