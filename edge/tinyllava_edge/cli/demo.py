"""``tinyllava-edge demo``: broker, camera, sensors, gateway and client, all on this machine."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from itertools import cycle
from typing import TYPE_CHECKING, Annotated

import typer

from tinyllava_edge.errors import TinyLlavaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tinyllava_edge.config import GatewayConfig
    from tinyllava_edge.demo.device import Device
    from tinyllava_edge.demo.scene import Scene

START_TIMEOUT_S = 60.0
FRAME_INTERVAL_S = 5.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep all running until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    bundle: Annotated[str, typer.Option(help="Bundle folder, or the word demo.")] = "demo",
) -> None:
    """Show it all: a camera and sensors publish, a client asks, the gateway answers over MQTT.

    Needs no network: the broker runs in this process. Exits 0 when every question was answered.
    """
    from tinyllava_edge.cli.arguments import bundle_folder
    from tinyllava_edge.demo.broker import DemoBroker
    from tinyllava_edge.demo.report import Report, count
    from tinyllava_edge.demo.report import as_json as report_as_json
    from tinyllava_edge.demo.scene import load_scenes
    from tinyllava_edge.demo.show import demo_config, play

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    report = Report(quiet=as_json)
    folder = bundle_folder(bundle)
    scenes = load_scenes()
    with ExitStack() as running:
        broker = DemoBroker()
        broker.start()
        running.callback(broker.stop)
        config = demo_config(broker.port, str(folder), scenes)
        model = _start_gateway(config, running)
        device = _start_device(config, running)
        report.header(_cast(config, scenes, model, folder))
        judged = play(scenes, device, report.judged)
        if as_json:
            typer.echo(json.dumps(report_as_json(judged, model), ensure_ascii=False))
        report.totals(judged)
        if keep:
            report.invitation(config.base, broker.port, scenes[0].questions[0].question)
            _keep_showing(scenes, device)
    facts = count(judged)
    if facts["answered"] < facts["asked"]:
        raise typer.Exit(1)


def _start_gateway(config: GatewayConfig, running: ExitStack) -> str:
    """Start the gateway and wait until it can answer; the bundle's name."""
    from tinyllava_edge.bundle import open_bundle
    from tinyllava_edge.cli.arguments import bundle_folder
    from tinyllava_edge.cli.engine import engine_opener
    from tinyllava_edge.gateway import Gateway

    gateway = Gateway(config, engine_opener(config))
    gateway.start()
    running.callback(gateway.stop)
    if not gateway.wait_online(START_TIMEOUT_S):
        raise TinyLlavaError(f"gateway: not online after {START_TIMEOUT_S:g} s; see the log above")
    return open_bundle(bundle_folder(config.bundle)).manifest.name


def _start_device(config: GatewayConfig, running: ExitStack) -> Device:
    from tinyllava_edge.demo.device import Device

    device = Device(config.mqtt.host, config.mqtt.port, config.base)
    device.start()
    running.callback(device.stop)
    return device


def _cast(
    config: GatewayConfig, scenes: Sequence[Scene], model: str, folder: Path
) -> dict[str, str]:
    """Who takes part in the demo, for its first lines."""
    size_mib = sum(file.stat().st_size for file in folder.iterdir()) / (1 << 20)
    return {
        "broker": f"mqtt://{config.mqtt.host}:{config.mqtt.port}, in this process",
        "camera": f"{len(scenes)} JPEG pictures on {config.base}/camera/panel/frame",
        "sensors": f"{', '.join(config.sensors)} on {config.base}/sensor/<name>",
        "gateway": f"answers what comes on {config.base}/ask",
        "model": f"{model}, {size_mib:.1f} MiB",
    }


def _keep_showing(scenes: Sequence[Scene], device: Device) -> None:
    """Show the scenes in turn until a signal comes."""
    from tinyllava_edge.cli.run import stop_on_signals
    from tinyllava_edge.demo.show import publish_scene

    stop = stop_on_signals()
    for scene in cycle(scenes):
        if stop.wait(FRAME_INTERVAL_S):
            return
        publish_scene(scene, device)
