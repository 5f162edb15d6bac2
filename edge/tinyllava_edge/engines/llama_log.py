"""llama.cpp's own messages, sent to Python's logging instead of standard error."""

from __future__ import annotations

import ctypes
import logging
from typing import Any

log = logging.getLogger("tinyllava_edge.llama_cpp")

# ggml's levels: 1 debug, 2 info, 3 warning, 4 error, 5 goes on with the line before. Its
# information is what we call debugging, and its warnings are mostly remarks on the model.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.ERROR}
_CONTINUED = 5
_CALLBACKS: list[Any] = []
"""The native side keeps a bare pointer to the callback, so it must live as long as the process."""


class _Lines:
    """Joins pieces of messages into lines and remembers the last error."""

    def __init__(self) -> None:
        self._level = logging.DEBUG
        self._pending = ""
        self.last_error = ""

    def feed(self, level: int, text: str) -> None:
        if level != _CONTINUED:
            self._level = _LEVELS.get(level, logging.DEBUG)
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            if not line.strip():
                continue
            if self._level == logging.ERROR:
                self.last_error = line.strip()
            log.log(self._level, "%s", line)


_lines = _Lines()


def route_log(llama_cpp: Any) -> None:
    """Send everything llama.cpp and ggml say to the logger; call it as often as you like."""
    if _CALLBACKS:
        return

    def receive(level: int, text: bytes, _user_data: object) -> None:
        _lines.feed(level, text.decode("utf-8", "replace"))

    callback = llama_cpp.llama_log_callback(receive)
    _CALLBACKS.append(callback)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))


def last_error() -> str:
    """The last line that llama.cpp called an error, or the empty string."""
    return _lines.last_error
