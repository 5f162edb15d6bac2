"""A broker inside the process, for the demo and for trying things out: amqtt, MQTT 3.1.1 only."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from tinyllava_edge.errors import BackendMissing, TinyLlavaError

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0


class DemoBroker:
    """amqtt in a thread of its own, on the loopback interface, open to anyone on this machine."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="demo-broker", daemon=True)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._failure: TinyLlavaError | None = None
        self._make_broker: Callable[[], Any]

    def start(self) -> None:
        """Start and wait until clients can connect.

        Raises ``BackendMissing`` without amqtt, ``TinyLlavaError`` where the port cannot be had.
        """
        try:
            import amqtt.broker
        except ImportError:
            raise BackendMissing(
                "the demo's broker needs amqtt; pip install 'tinyllava-edge[broker]'"
            ) from None
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._make_broker = lambda: amqtt.broker.Broker(_settings(self.port))
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise TinyLlavaError(f"broker: not up on port {self.port} after {START_TIMEOUT_S:g} s")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close every connection and the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except TinyLlavaError as error:
            self._failure = error
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        from amqtt.errors import BrokerError

        broker = self._make_broker()
        try:
            await broker.start()
        except (BrokerError, OSError) as error:
            raise TinyLlavaError(f"broker: cannot listen on port {self.port} ({error})") from None
        self._started.set()
        await self._stop.wait()
        await broker.shutdown()
        await _end_all_tasks()


async def _end_all_tasks() -> None:
    """End what amqtt leaves behind: handlers of clients that were never heard of again."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _settings(port: int) -> dict[str, object]:
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
