"""A broker in the process, a gateway with a scripted engine, and a client to talk to it."""

import io
import itertools
import json
import queue
import subprocess
import sys
import threading
import time

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image

from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.demo.broker import free_port
from tinyllava_edge.engines.fake import FakeEngine
from tinyllava_edge.gateway import Gateway

NUMBERS = itertools.count(1)


class Listener:
    """A plain MQTT client that keeps everything it hears, by topic."""

    def __init__(self, port: int, base: str) -> None:
        self._base = base
        self._heard: dict[str, queue.Queue[bytes]] = {}
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _d, m: self._queue(m.topic).put(m.payload)
        self._client.on_connect = lambda c, *_: c.subscribe(f"{base}/#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def publish(self, topic: str, payload: bytes | str, **options) -> None:
        info = self._client.publish(f"{self._base}/{topic}", payload, qos=1, **options)
        info.wait_for_publish(10)
        assert info.is_published()

    def heard(self, topic: str, timeout_s: float = 10.0) -> bytes:
        return self._queue(f"{self._base}/{topic}").get(timeout=timeout_s)

    def silent(self, topic: str, wait_s: float = 0.3) -> bool:
        time.sleep(wait_s)
        return self._queue(f"{self._base}/{topic}").empty()

    def answer(self, ask_id: str, timeout_s: float = 10.0) -> dict:
        return json.loads(self.heard(f"answer/{ask_id}", timeout_s))

    def ask(self, ask_id: str, **fields) -> dict:
        body = {"camera": "porch", "question": "What colour?", **fields}
        self.publish("ask", json.dumps({"id": ask_id, **body}))
        return self.answer(ask_id)

    def health_until(self, wanted, timeout_s: float = 10.0) -> dict:
        """The first health message for which ``wanted`` holds."""
        end_s = time.monotonic() + timeout_s
        health = {}
        while time.monotonic() < end_s:
            health = json.loads(self.heard("health", timeout_s))
            if wanted(health):
                return health
        raise AssertionError(f"last health was {health}")

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _queue(self, topic: str) -> "queue.Queue[bytes]":
        with self._lock:
            return self._heard.setdefault(topic, queue.Queue())


class BrokerProcess:
    """The demo's broker in a process of its own, which can be killed without a word."""

    CODE = (
        "import sys; from tinyllava_edge.demo.broker import DemoBroker; "
        "broker = DemoBroker(int(sys.argv[1])); broker.start(); print('up', flush=True); "
        "sys.stdin.read(); broker.stop()"
    )

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        command = [sys.executable, "-c", self.CODE, str(self.port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout.readline() == b"up\n"

    def stop(self) -> None:
        self._process.communicate(timeout=15)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=15)


@pytest.fixture(scope="session")
def broker():
    broker = BrokerProcess()
    yield broker
    broker.stop()


@pytest.fixture
def start_broker():
    """Start brokers; kills those that still run in the end."""
    started = []

    def start(port: int | None = None) -> BrokerProcess:
        started.append(BrokerProcess(port))
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def name() -> str:
    """A gateway's name of the test's own: the broker keeps retained messages of the others."""
    return f"test-{next(NUMBERS)}"


@pytest.fixture
def start_gateway(broker, name):
    """Start a gateway; stops it in the end."""
    started = []

    def start(engine=None, *, wait=True, **settings) -> Gateway:
        mqtt = {"host": "127.0.0.1", "port": broker.port, "protocol": "3.1.1"}
        config = GatewayConfig.model_validate(
            {"gateway": name, "mqtt": mqtt, "health_s": 0.2, "drain_s": 1, **settings}
        )
        engine = engine or FakeEngine({"What colour?": "red"})
        gateway = Gateway(config, engine if callable(engine) else lambda: engine)
        gateway.start()
        started.append(gateway)
        if wait:
            assert gateway.wait_online(20)
        return gateway

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture
def listener(broker, name):
    listener = Listener(broker.port, f"tinyllava/{name}")
    yield listener
    listener.stop()


@pytest.fixture
def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "JPEG")
    return out.getvalue()
