"""The thread that owns the engine: opens it, tries it, answers with it, closes it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

from tinyllava_edge.answering import Answerer
from tinyllava_edge.engines.contract import Engine
from tinyllava_edge.errors import TinyLlavaError
from tinyllava_edge.messages import Answer, failure
from tinyllava_edge.schedule import AskQueue, Pending

logger = logging.getLogger(__name__)

State = Literal["starting", "ready", "failing", "stopped"]
POLL_S = 0.25


class Worker:
    """Takes groups of asks from the queue and hands each ask's answer to ``finish``."""

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        make_answerer: Callable[[Engine], Answerer],
        asks: AskQueue,
        finish: Callable[[Pending, Answer], None],
        *,
        group: int,
        self_test_s: float,
    ) -> None:
        self._open_engine = open_engine
        self._make_answerer = make_answerer
        self._asks = asks
        self._finish = finish
        self._group = group
        self._self_test_s = self_test_s
        self._stopping = threading.Event()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._answerer: Answerer | None = None
        self.state: State = "starting"
        self.model: str | None = None
        self.failure: TinyLlavaError | None = None

    def start(self) -> None:
        """Open the engine and try it, in the background."""
        self._thread.start()

    def wait_opened(self, timeout_s: float) -> bool:
        """Wait until the engine has passed its first test or failed; raises why it failed."""
        opened = self._opened.wait(timeout_s)
        if self.failure is not None:
            raise self.failure
        return opened

    def stop(self, timeout_s: float) -> bool:
        """End after the group in hand; False where the engine does not return in time."""
        self._stopping.set()
        self._asks.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def since_success_s(self) -> float:
        """Seconds since an inference was completed; infinite before the first."""
        answerer = self._answerer
        return float("inf") if answerer is None else time.monotonic() - answerer.last_success_s

    def _run(self) -> None:
        try:
            engine = self._open_engine()
        except TinyLlavaError as error:
            self._fail(error)
            return
        except Exception as error:
            # A runtime may raise anything while it loads; the gateway ends with one line.
            logger.exception("the engine could not be opened")
            self._fail(TinyLlavaError(f"engine: {type(error).__name__}: {error}; see the log"))
            return
        try:
            self._serve(engine)
        finally:
            self.state = "stopped"
            engine.close()

    def _fail(self, error: TinyLlavaError) -> None:
        self.failure = error
        self.state = "failing"
        self._opened.set()

    def _serve(self, engine: Engine) -> None:
        answerer = self._make_answerer(engine)
        self.model = engine.name
        self._test(answerer)
        self._answerer = answerer
        if self.state == "failing":
            self.failure = TinyLlavaError("engine: the first self-test failed; see the log")
        self._opened.set()
        tested_s = time.monotonic()
        while self.failure is None and not self._stopping.is_set():
            group = self._asks.take_group(self._group, POLL_S)
            if group:
                self._answer(answerer, group)
            idle_s = time.monotonic() - max(tested_s, answerer.last_success_s)
            if idle_s >= self._self_test_s:
                self._test(answerer)
                tested_s = time.monotonic()

    def _answer(self, answerer: Answerer, group: Sequence[Pending]) -> None:
        succeeded_s = answerer.last_success_s
        try:
            answers = answerer.answer(group)
            if answerer.last_success_s > succeeded_s:
                self.state = "ready"
        except Exception as error:
            # What a native runtime may raise is not ours to list; the askers get an answer.
            logger.exception("the engine failed on %d asks", len(group))
            text = f"the model failed ({type(error).__name__}); ask again"
            answers = [failure(p.ask.id, "engine_failed", text, p.ask.camera) for p in group]
            self._test(answerer)
        for pending, answer in zip(group, answers, strict=True):
            self._finish(pending, answer)

    def _test(self, answerer: Answerer) -> None:
        try:
            answerer.self_test()
        except Exception:
            logger.exception("the self-test failed")
            self.state = "failing"
        else:
            self.state = "ready"
