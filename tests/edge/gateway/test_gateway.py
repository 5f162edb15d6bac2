"""The gateway through a broker: answers, one outcome each, status, health, the end."""

import base64
import hashlib
import json
import threading
import time
from pathlib import Path

import pytest

from tinyllava_edge.engines.fake import FakeEngine
from tinyllava_edge.errors import BundleError


class GatedEngine(FakeEngine):
    """Waits in every ask on ``gate`` until the test opens it; the self-test passes."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.gate = gate
        self.entered = threading.Event()

    def ask(self, sight, questions):
        if sight.key != "self-test":
            self.entered.set()
            assert self.gate.wait(20)
        return super().ask(sight, questions)


class FailingEngine(FakeEngine):
    """Raises on demand, as a native runtime may."""

    broken = False

    def ask(self, sight, questions):
        if self.broken or questions[0].text == "crash":
            raise MemoryError("native")
        return super().ask(sight, questions)


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def send(listener, ask_id: str, **fields) -> None:
    body = {"id": ask_id, "camera": "porch", "question": "What colour?", **fields}
    listener.publish("ask", json.dumps(body))


def test_frame_and_reading_and_ask_give_an_answer_with_its_origin(start_gateway, listener, jpeg):
    start_gateway()
    listener.publish("sensor/temperature", '{"value": 62, "unit": "°C"}')
    listener.publish("camera/porch/frame", jpeg)
    answer = listener.ask("a1", sensors=["temperature"])
    assert (answer["outcome"], answer["answer"]) == ("ok", "red")
    assert answer["frame_sha256"] == hashlib.sha256(jpeg).hexdigest()
    assert answer["sensors"] == [
        {"name": "temperature", "value": "62", "unit": "°C", "age_s": 0, "stale": False}
    ]
    assert answer["error"] is None


def test_picture_inside_the_ask_needs_no_camera(start_gateway, listener, jpeg):
    start_gateway()
    text = base64.b64encode(jpeg).decode()
    listener.publish("ask", json.dumps({"id": "a1", "image": text, "question": "What colour?"}))
    answer = listener.answer("a1")
    assert (answer["answer"], answer["camera"]) == ("red", None)


def test_repeated_id_gets_the_same_answer_and_no_second_inference(start_gateway, listener, jpeg):
    engine = FakeEngine()
    start_gateway(engine)
    listener.publish("camera/porch/frame", jpeg)
    first = listener.ask("same")
    asked = engine.asked
    assert listener.ask("same") == first
    assert engine.asked == asked
    health = listener.health_until(lambda h: h["drops"].get("ask_repeated") == 1)
    assert health["asks"] == {"accepted": 1, "ok": 1}


def test_repeated_id_is_ignored_and_counted_while_the_first_is_open(
    start_gateway, listener, jpeg, gate
):
    engine = GatedEngine(gate)
    start_gateway(engine)
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "same")
    assert engine.entered.wait(10)
    send(listener, "same")
    listener.health_until(lambda h: h["drops"].get("ask_repeated_while_open") == 1)
    gate.set()
    assert listener.answer("same")["outcome"] == "ok"
    assert listener.silent("answer/same")


def test_asks_beyond_the_queue_are_rejected_and_the_accepted_ones_answered(
    start_gateway, listener, jpeg, gate
):
    engine = GatedEngine(gate)
    start_gateway(engine, limits={"queue": 2, "group": 1})
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "busy")
    assert engine.entered.wait(10)
    for ask_id in ("q1", "q2", "over"):
        send(listener, ask_id)
    rejected = listener.answer("over")
    assert (rejected["outcome"], rejected["error"]["code"]) == ("rejected", "queue_full")
    gate.set()
    assert [listener.answer(x)["outcome"] for x in ("busy", "q1", "q2")] == ["ok"] * 3
    assert listener.ask("over")["outcome"] == "ok"


def test_ask_expires_in_the_queue_while_the_engine_is_busy(start_gateway, listener, jpeg, gate):
    engine = GatedEngine(gate)
    start_gateway(engine, limits={"group": 1})
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "busy")
    assert engine.entered.wait(10)
    send(listener, "hurry", deadline_ms=50)
    expired = listener.answer("hurry")
    assert (expired["outcome"], expired["error"]["code"]) == ("expired", "deadline")
    gate.set()
    assert listener.answer("busy")["outcome"] == "ok"
    assert engine.asked == 1 + 1, "the self-test and the one that waited long enough"


def test_urgent_asks_go_first(start_gateway, listener, jpeg, gate):
    engine = GatedEngine(gate)
    start_gateway(engine, limits={"group": 1})
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "busy")
    assert engine.entered.wait(10)
    send(listener, "calm", priority=0)
    send(listener, "urgent", priority=9)
    listener.health_until(lambda h: h["queue"] == 2)
    gate.set()
    calm, urgent = listener.answer("calm"), listener.answer("urgent")
    assert urgent["timings_ms"]["since_ask"] < calm["timings_ms"]["since_ask"]


def test_answer_goes_where_the_ask_wants_it_when_the_prefix_is_allowed(
    start_gateway, listener, jpeg, name
):
    start_gateway()
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "a1", reply_to=f"tinyllava/{name}/mine")
    assert json.loads(listener.heard("mine"))["id"] == "a1"
    answer = listener.ask("a2", reply_to="elsewhere/x")
    assert (answer["outcome"], answer["error"]["code"]) == ("rejected", "reply_to_not_allowed")


def test_status_is_online_after_the_self_test_and_offline_at_the_end(start_gateway, listener):
    gateway = start_gateway()
    while listener.heard("status") != b"online":
        pass
    gateway.stop()
    assert listener.heard("status") == b"offline"


def test_engine_failure_is_an_answer_and_the_next_ask_works(start_gateway, listener, jpeg):
    engine = FailingEngine()
    start_gateway(engine)
    listener.publish("camera/porch/frame", jpeg)
    answer = listener.ask("a1", question="crash")
    assert (answer["outcome"], answer["error"]["code"]) == ("error", "engine_failed")
    assert listener.ask("a2")["outcome"] == "ok"


def test_status_goes_offline_while_self_tests_fail_and_back_when_they_pass(start_gateway, listener):
    engine = FailingEngine()
    start_gateway(engine, self_test_s=0.1)
    listener.health_until(lambda h: h["status"] == "online")
    engine.broken = True
    assert listener.health_until(lambda h: h["status"] == "offline")["worker"] == "failing"
    engine.broken = False
    listener.health_until(lambda h: h["status"] == "online")


def test_gateway_fails_in_one_line_when_the_engine_cannot_be_opened(start_gateway):
    def refuse():
        raise BundleError("models/x: no manifest.json; export it again")

    gateway = start_gateway(refuse, wait=False)
    with pytest.raises(BundleError, match="no manifest"):
        gateway.wait_online(10)
    assert isinstance(gateway.failure, BundleError)


def test_stop_answers_what_is_accepted_and_drops_what_takes_too_long(
    start_gateway, listener, jpeg, gate
):
    engine = GatedEngine(gate)
    gateway = start_gateway(engine, drain_s=0.3)
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "stuck")
    assert engine.entered.wait(10)
    threading.Timer(3, gate.set).start()
    gateway.stop()
    dropped = listener.answer("stuck")
    assert (dropped["outcome"], dropped["error"]["code"]) == ("dropped", "stopped")
    assert listener.silent("answer/stuck")
    assert engine.closed


def test_stop_waits_for_accepted_asks_within_the_drain_time(start_gateway, listener, jpeg, gate):
    engine = GatedEngine(gate)
    gateway = start_gateway(engine, drain_s=10)
    listener.publish("camera/porch/frame", jpeg)
    send(listener, "a1")
    assert engine.entered.wait(10)
    threading.Timer(0.2, gate.set).start()
    begun_s = time.monotonic()
    gateway.stop()
    assert time.monotonic() - begun_s < 5
    assert listener.answer("a1")["outcome"] == "ok"


def test_health_tells_model_queue_latency_cameras_and_memory(start_gateway, listener, jpeg):
    start_gateway()
    listener.publish("camera/porch/frame", jpeg)
    listener.publish("sensor/t", "1")
    listener.ask("a1")
    health = listener.health_until(lambda h: h["asks"].get("ok") == 1)
    assert (health["model"], health["worker"], health["mqtt"]) == ("fake", "ready", "3.1.1")
    assert health["latency_ms"]["p50"] > 0
    assert health["cameras"]["porch"]["age_ms"] >= 0
    assert health["sensors"] == ["t"]
    assert health["rss_mib"] > 10


def test_health_has_exactly_the_fields_of_the_document(start_gateway, listener):
    start_gateway()
    health = listener.health_until(lambda h: h["status"] == "online")
    document = (Path(__file__).parents[3] / "docs/mqtt.md").read_text(encoding="utf-8")
    example = document.split("```json health\n")[1].split("```")[0]
    assert list(health) == list(json.loads(example))
