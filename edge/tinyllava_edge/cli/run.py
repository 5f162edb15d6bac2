"""``tinyllava-edge run``: the gateway, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

POLL_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    config: Annotated[Path, typer.Option(help="The gateway's YAML configuration.")],
    *,
    verbose: Annotated[bool, typer.Option(help="Log every detail.")] = False,
) -> None:
    """Run the gateway: answer questions that come over MQTT, until SIGTERM or Ctrl-C.

    Logs on standard error. Accepted questions are answered before it ends.
    """
    from tinyllava_edge.cli.engine import engine_opener
    from tinyllava_edge.config import load_config
    from tinyllava_edge.gateway import Gateway

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    settings = load_config(config)
    gateway = Gateway(settings, engine_opener(settings))
    stop = stop_on_signals()
    gateway.start()
    while not stop.wait(POLL_S) and gateway.failure is None:
        pass
    gateway.stop()
    if gateway.failure is not None:
        raise gateway.failure


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second one of them ends the process at once."""
    stop = threading.Event()

    def ask_to_stop(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    return stop
