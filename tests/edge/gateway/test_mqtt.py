"""The link: protocols, brokers that come and go, brokers that say nothing."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from tinyllava_edge.config import MqttSettings, TlsSettings
from tinyllava_edge.connection import Peer
from tinyllava_edge.demo.broker import free_port
from tinyllava_edge.errors import ConfigError
from tinyllava_edge.mqtt import MqttLink, read_password, tls_context
from tinyllava_edge.outbox import Outbox, Outgoing


def make_link(port: int, outbox: Outbox, protocol: str = "auto", heard=None) -> MqttLink:
    peer = Peer(
        host="127.0.0.1",
        port=port,
        keepalive_s=10,
        client_id="link-under-test",
        will=None,
        subscriptions={"echo/#": 1},
        on_message=(heard.append if heard is not None else lambda message: None),
        largest_packet_bytes=1 << 20,
    )
    return MqttLink(peer, outbox, protocol=protocol)


def wait_for(condition, timeout_s: float = 15.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_link_falls_back_to_3_1_1_when_the_broker_cannot_read_mqtt_5(broker):
    outbox, heard = Outbox(10), []
    link = make_link(broker.port, outbox, heard=heard)
    link.start()
    try:
        assert wait_for(lambda: link.protocol == "3.1.1")
        outbox.put(Outgoing("echo/1", b"hello"))
        assert wait_for(lambda: [m.payload for m in heard] == [b"hello"])
    finally:
        link.stop()


@pytest.mark.parametrize("farewell", [b"", b"\x20\x02\x00\x01"])
def test_link_tries_3_1_1_when_the_broker_hangs_up_or_refuses_the_version(farewell):
    levels: list[int] = []
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                packet = client.recv(1000)
                levels.append(packet[packet.index(b"MQTT") + 4])
                client.sendall(farewell)

    threading.Thread(target=hang_up, daemon=True).start()
    link = make_link(server.getsockname()[1], Outbox(1))
    link.start()
    try:
        assert wait_for(lambda: 4 in levels)
        assert levels[0] == 5
    finally:
        server.close()
        link.stop()


def test_link_delivers_what_was_accepted_when_the_broker_is_killed_and_restarted(start_broker):
    first = start_broker()
    outbox, heard = Outbox(10), []
    link = make_link(first.port, outbox, "3.1.1", heard)
    link.start()
    try:
        assert wait_for(lambda: link.protocol)
        first.kill()
        assert wait_for(lambda: link.protocol is None)
        outbox.put(Outgoing("echo/1", b"while it was away"))
        start_broker(first.port)
        assert wait_for(lambda: [m.payload for m in heard] == [b"while it was away"])
        assert outbox.flush(5)
    finally:
        link.stop()


def test_link_stops_at_once_when_there_is_no_broker():
    link = make_link(free_port(), Outbox(1))
    link.start()
    time.sleep(0.1)
    begun_s = time.monotonic()
    link.stop()
    assert time.monotonic() - begun_s < 1


def test_password_comes_from_the_environment_and_must_be_there(monkeypatch):
    settings = MqttSettings(username="me", password_env="TINYLLAVA_TEST_PASSWORD")
    with pytest.raises(ConfigError, match="TINYLLAVA_TEST_PASSWORD is not set"):
        read_password(settings)
    monkeypatch.setenv("TINYLLAVA_TEST_PASSWORD", "secret")
    assert read_password(settings) == "secret"
    assert read_password(MqttSettings()) is None


def test_tls_context_is_refused_in_one_line_when_a_file_is_missing(tmp_path):
    assert tls_context(None) is None
    assert tls_context(TlsSettings()) is not None
    with pytest.raises(ConfigError, match="cannot be used"):
        tls_context(TlsSettings(ca_file=tmp_path / "none.pem"))


def test_demo_broker_refuses_a_port_that_is_taken(broker):
    code = (
        "from tinyllava_edge.demo.broker import DemoBroker\n"
        "from tinyllava_edge.errors import TinyLlavaError\n"
        f"try: DemoBroker({broker.port}).start()\n"
        "except TinyLlavaError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"cannot listen on port {broker.port}" in ran.stdout
