"""The demo as a newcomer runs it: shipped bundle and pictures, in a process of its own."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time

COMMAND = [sys.executable, "-c", "from tinyllava_edge.cli import app; app()", "demo"]
TOTALS = re.compile(r"(\d+) asked, (\d+) answered, (\d+) right")


def test_demo_answers_everything_over_mqtt_and_ends_with_the_totals():
    ran = subprocess.run(COMMAND, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    totals = TOTALS.fullmatch(ran.stdout.splitlines()[-1])
    assert totals is not None
    asked, answered, right = map(int, totals.groups())
    assert asked >= 8
    assert answered == asked
    assert right >= 0.75 * asked
    assert len(re.findall(r"^panel-\d+\.jpg .* ms$", ran.stdout, re.MULTILINE)) == asked
    assert re.search(r"^panel-\S+ +\[\w+=", ran.stdout, re.MULTILINE), "a sensor line is shown"


def test_demo_prints_one_object_when_asked_for_json():
    ran = subprocess.run(
        [*COMMAND, "--json"], capture_output=True, text=True, timeout=100, check=True
    )
    facts = json.loads(ran.stdout)
    assert facts["asked"] == facts["answered"] == len(facts["answers"])
    assert {"picture", "answer", "confidence", "truth", "milliseconds"} <= set(facts["answers"][0])


def test_demo_that_is_kept_answers_the_lines_it_prints(need):
    need("mosquitto_pub")
    process = subprocess.Popen([*COMMAND, "--keep"], stdout=subprocess.PIPE, text=True)
    try:
        lines = []
        while not (
            lines and lines[-1].lstrip().startswith("mosquitto_sub") and "health" in lines[-1]
        ):
            lines.append(process.stdout.readline())
            assert lines[-1], "the demo ended by itself"
        (listen,) = [x.strip() for x in lines if "mosquitto_sub" in x and "answer" in x]
        (ask,) = [x.strip() for x in lines if "mosquitto_pub" in x and "/ask" in x]
        listener = subprocess.Popen(
            [*shlex.split(listen), "-C", "1", "-W", "30"], stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        subprocess.run(shlex.split(ask), check=True, timeout=30)
        topic, payload = listener.communicate(timeout=60)[0].split(" ", 1)
        assert topic == "tinyllava/demo/answer/mine-1"
        assert json.loads(payload)["outcome"] == "ok"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
