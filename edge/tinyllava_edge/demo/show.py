"""The demo itself: scenes go through camera, sensors, broker and gateway; answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.demo.device import Device, TimedAnswer
from tinyllava_edge.demo.scene import Scene, SceneQuestion

CAMERA = "panel"
ANSWER_TIMEOUT_S = 20.0
ATTEMPTS = 3


@dataclass(frozen=True)
class Judged:
    """One question, what came back, and whether it is true."""

    picture: str
    question: SceneQuestion
    sensor_line: str
    answer: str | None
    confidence: float | None
    milliseconds: float | None
    error: str | None

    @property
    def right(self) -> bool:
        """Whether the answer is the truth, letter case and outer spaces aside."""
        return self.answer is not None and _plain(self.answer) == _plain(self.question.truth)


def demo_config(port: int, bundle: str, scenes: Sequence[Scene]) -> GatewayConfig:
    """The gateway of the demo: one camera, and a sensor for each that the scenes name."""
    sensors = {s.name: {"unit": s.unit} for scene in scenes for s in scene.sensors}
    return GatewayConfig.model_validate(
        {
            "gateway": "demo",
            "bundle": bundle,
            # amqtt reads nothing newer, and asking it costs seconds.
            "mqtt": {"host": "127.0.0.1", "port": port, "protocol": "3.1.1"},
            "cameras": {CAMERA: {}},
            "sensors": sensors,
            "health_s": 2,
        }
    )


def play(scenes: Sequence[Scene], device: Device, report: Callable[[Judged], None]) -> list[Judged]:
    """Show every scene to the camera in turn and ask its questions."""
    judged = []
    for scene in scenes:
        for one in play_scene(scene, device):
            report(one)
            judged.append(one)
    return judged


def play_scene(scene: Scene, device: Device) -> list[Judged]:
    """Publish the scene's readings and its frame, then ask all its questions at once.

    MQTT promises no order between topics, so every answer's ``frame_sha256`` is compared with the
    frame that was sent; where an older one was still there, all is asked again.
    """
    publish_scene(scene, device)
    asks = [_ask(question) for question in scene.questions]
    answers: list[TimedAnswer | None] = []
    for _ in range(ATTEMPTS):
        answers = device.ask(asks, ANSWER_TIMEOUT_S)
        if all(timed is None or timed.answer.frame_sha256 == scene.key for timed in answers):
            break
    return [
        _judge(scene, question, timed)
        for question, timed in zip(scene.questions, answers, strict=True)
    ]


def publish_scene(scene: Scene, device: Device) -> None:
    """What the camera and the sensors of a scene send."""
    for sensor in scene.sensors:
        device.send_reading(sensor.name, sensor.value)
    device.send_frame(CAMERA, scene.data)


def _ask(question: SceneQuestion) -> dict[str, Any]:
    ask: dict[str, Any] = {"camera": CAMERA, "question": question.question, "kind": question.kind}
    if question.choices:
        ask["choices"] = question.choices
    if question.sensors:
        ask["sensors"] = question.sensors
    return ask


def _judge(scene: Scene, question: SceneQuestion, timed: TimedAnswer | None) -> Judged:
    used = [s for s in scene.sensors if s.name in question.sensors]
    line = ", ".join(f"{s.name}={s.value}{' ' * bool(s.unit)}{s.unit}" for s in used)
    if timed is None:
        error = f"no answer within {ANSWER_TIMEOUT_S:g} s"
        return Judged(scene.name, question, line, None, None, None, error)
    answer = timed.answer
    error_text = None if answer.error is None else f"{answer.error.code}: {answer.error.message}"
    return Judged(
        picture=scene.name,
        question=question,
        sensor_line=line,
        answer=answer.answer,
        confidence=answer.confidence,
        milliseconds=timed.milliseconds,
        error=error_text,
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
