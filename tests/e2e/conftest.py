"""A real mosquitto, its own clients, and the gateway as a real process."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

GATEWAY_START_S = 60
COMMAND = [sys.executable, "-c", "from tinyllava_edge.cli import app; app()"]


def find_tool(tool: str) -> str:
    """A tool's path; without it the test is skipped, or fails where the broker is required."""
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = f"{tool} is not installed; on Debian: apt install mosquitto mosquitto-clients"
        if os.environ.get("TINYLLAVA_REQUIRE_BROKER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def need():
    """``need(tool)``: its path, see ``find_tool``."""
    return find_tool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """The broker as a process that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._binary = find_tool("mosquitto")
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        )
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._binary, "-c", str(self._settings)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail("mosquitto did not come up in 10 s")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def publish(self, topic: str, *arguments: str) -> None:
        """``mosquitto_pub`` with QoS 1, which returns when the broker has the message."""
        subprocess.run(
            [find_tool("mosquitto_pub"), *self._where(), "-q", "1", "-t", topic, *arguments],
            check=True,
            timeout=30,
        )

    def request(self, topic: str, reply: str, message: str) -> bytes:
        """``mosquitto_rr``: publish with MQTT 5's response topic, and the response."""
        return subprocess.run(
            [
                *(find_tool("mosquitto_rr"), *self._where(), "-V", "5", "-q", "1", "-W", "30"),
                *("-t", topic, "-e", reply, "-m", message),
            ],
            check=True,
            timeout=60,
            capture_output=True,
        ).stdout

    def subscribe(self, topic: str, count: int = 1, timeout_s: int = 30) -> "Subscription":
        return Subscription([*self._where(), "-t", topic, "-C", str(count), "-W", str(timeout_s)])

    def status(self, gateway: str) -> str:
        """The retained status now; empty where there is none."""
        topic = f"tinyllava/{gateway}/status"
        return self.subscribe(topic, timeout_s=1).read().decode().strip()

    def wait_for_status(self, gateway: str, wanted: str, timeout_s: float = 60) -> None:
        end_s = time.monotonic() + timeout_s
        while (seen := self.status(gateway)) != wanted:
            assert time.monotonic() < end_s, f"status is {seen!r} after {timeout_s} s"

    def _where(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port)]


class Subscription:
    """``mosquitto_sub`` in the background; ready when made."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [find_tool("stdbuf"), "-oL", find_tool("mosquitto_sub"), "-d", "-q", "1", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._lines: list[bytes] = []
        # With -d it tells when the broker has confirmed the subscription.
        for line in self._process.stdout:
            if line.startswith(b"Subscribed"):
                break

    def read(self) -> bytes:
        """The messages, one a line, without mosquitto_sub's own remarks."""
        # Through the same buffer that the constructor reads from; -W bounds the wait.
        out = self._process.stdout.read()
        self._process.wait(10)
        self._process.stdout.close()
        remarks = (b"Client ", b"Subscribed")
        return b"\n".join(line for line in out.splitlines() if not line.startswith(remarks))

    def answer(self) -> dict:
        text = self.read()
        assert text, "no answer came"
        return json.loads(text)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.kill()


class GatewayProcess:
    """``tinyllava-edge run`` as a process."""

    def __init__(self, settings: Path, log: Path) -> None:
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [*COMMAND, "run", "--config", str(settings)], stderr=self._log
        )

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._log.close()


def run_gateway(name: str, mosquitto: Mosquitto, folder: Path) -> GatewayProcess:
    """Start a gateway on the demo's bundle and wait until it is online."""
    settings, log = folder / "gateway.yaml", folder / "gateway.log"
    bundle = os.environ.get("TINYLLAVA_TEST_BUNDLE", "demo")
    settings.write_text(
        f"gateway: {name}\nbundle: {bundle}\nthreads: 1\nhealth_s: 0.5\n"
        f"mqtt: {{host: 127.0.0.1, port: {mosquitto.port}}}\n"
    )
    process = GatewayProcess(settings, log)
    end_s = time.monotonic() + GATEWAY_START_S
    while mosquitto.status(name) != "online":
        if process.process.poll() is not None or time.monotonic() > end_s:
            process.kill()
            pytest.fail(f"the gateway did not come up:\n{log.read_text()}")
    return process


@pytest.fixture(scope="module")
def gateway(mosquitto, tmp_path_factory):
    """The gateway ``hall``, which every test of the file talks to."""
    process = run_gateway("hall", mosquitto, tmp_path_factory.mktemp("hall"))
    yield process
    process.kill()


@pytest.fixture
def mortal_gateway(mosquitto, tmp_path):
    """The gateway ``attic``, of one test that ends it."""
    process = run_gateway("attic", mosquitto, tmp_path)
    yield process
    process.kill()


@pytest.fixture
def camera(request) -> str:
    """A camera of the test's own, whose name its asks begin with, too."""
    return f"{request.node.name[:40]}"


@pytest.fixture
def picture(tmp_path) -> Path:
    file = tmp_path / "picture.jpg"
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "JPEG")
    file.write_bytes(out.getvalue())
    return file
