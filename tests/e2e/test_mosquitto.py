"""The whole way with a real mosquitto and its own clients; nothing here speaks MQTT but theirs."""

import hashlib
import json
import threading
import time

ASK = "tinyllava/hall/ask"


def question(camera: str, number: int, **fields) -> str:
    about = {"id": f"{camera}-{number}", "camera": camera, "question": "Is the door open?"}
    return json.dumps({**about, **fields})


def ask(mosquitto, camera: str, number: int, **fields) -> dict:
    answers = mosquitto.subscribe(f"tinyllava/hall/answer/{camera}-{number}")
    mosquitto.publish(ASK, "-m", question(camera, number, **fields))
    return answers.answer()


def show(mosquitto, camera: str, *source: str) -> None:
    """Publish a frame, and wait until an ask about it can be sent."""
    before = frame_seq(mosquitto, camera)
    mosquitto.publish(f"tinyllava/hall/camera/{camera}/frame", *source)
    for _ in range(100):
        if frame_seq(mosquitto, camera) > before:
            return
        time.sleep(0.1)
    raise AssertionError(f"the frame of {camera} did not arrive")


def frame_seq(mosquitto, camera: str) -> int:
    """The number of the camera's latest frame, 0 before the first."""
    health = json.loads(mosquitto.subscribe("tinyllava/hall/health").read())
    return health["cameras"].get(camera, {}).get("frame_seq") or 0


def test_question_on_a_published_frame_is_answered(mosquitto, gateway, camera, picture):
    show(mosquitto, camera, "-f", str(picture))
    mosquitto.publish("tinyllava/hall/sensor/temperature", "-m", "62")
    answer = ask(mosquitto, camera, 1, kind="yes_no", sensors=["temperature"])
    assert answer["outcome"] == "ok"
    assert answer["verdict"] in {"yes", "no", "unknown"}
    assert 0 < answer["confidence"] <= 1
    assert answer["frame_sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    assert answer["sensors"][0]["value"] == "62"
    assert ask(mosquitto, camera, 1, kind="yes_no") == answer


def test_request_with_a_response_topic_gets_its_response(mosquitto, gateway, camera, picture):
    show(mosquitto, camera, "-f", str(picture))
    message = question(camera, 1, kind="choice", choices=["open", "closed"])
    response = json.loads(mosquitto.request(ASK, "tinyllava/me/replies", message))
    assert response["outcome"] == "ok"
    assert response["answer"] in {"open", "closed"}


def test_damaged_input_is_answered_and_a_good_request_afterwards_works(
    mosquitto, gateway, camera, picture, tmp_path
):
    mosquitto.publish(f"tinyllava/hall/camera/{camera}/frame", "-m", "no picture")
    mosquitto.publish(ASK, "-m", "not json")
    assert ask(mosquitto, camera, 1)["error"]["code"] == "unknown_camera"
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(picture.read_bytes()[:500])
    show(mosquitto, camera, "-f", str(truncated))
    assert ask(mosquitto, camera, 2)["error"]["code"] == "bad_picture"
    show(mosquitto, camera, "-f", str(picture))
    assert ask(mosquitto, camera, 3, kind="yes_no")["outcome"] == "ok"


def test_broker_killed_and_restarted_costs_nothing_but_time(mosquitto, gateway, camera, picture):
    show(mosquitto, camera, "-f", str(picture))
    assert ask(mosquitto, camera, 1, kind="yes_no")["outcome"] == "ok"
    mosquitto.kill()
    time.sleep(0.5)
    mosquitto.start()
    mosquitto.wait_for_status("hall", "online")
    assert ask(mosquitto, camera, 2, kind="yes_no")["outcome"] == "ok"
    assert gateway.process.poll() is None


def test_answer_accepted_before_the_broker_dies_comes_after_it_is_back(
    mosquitto, gateway, camera, picture
):
    show(mosquitto, camera, "-f", str(picture))
    long = {"questions": [f"What is thing {n}?" for n in range(16)], "max_tokens": 64}
    body = json.dumps({"id": f"{camera}-1", "camera": camera, **long})
    mosquitto.publish(ASK, "-m", body)
    mosquitto.kill()
    mosquitto.start()
    answers = mosquitto.subscribe(f"tinyllava/hall/answer/{camera}-1")
    mosquitto.wait_for_status("hall", "online")
    # It may have come back before anybody listened: then its id brings the same answer again.
    repeat = threading.Timer(1, mosquitto.publish, [ASK, "-m", body])
    repeat.start()
    answer = answers.answer()
    repeat.join()
    assert (answer["outcome"], len(answer["answers"])) == ("ok", 16)


def test_last_will_says_offline_when_the_gateway_is_killed(mosquitto, mortal_gateway):
    mortal_gateway.kill()
    mosquitto.wait_for_status("attic", "offline", 10)


def test_gateway_says_offline_and_ends_with_0_on_sigterm(mosquitto, mortal_gateway):
    assert mortal_gateway.terminate() == 0
    mosquitto.wait_for_status("attic", "offline", 5)
