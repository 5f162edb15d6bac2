"""The latest frame of each camera: a slot each, decoded only when somebody asks about it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property

from tinyllava_edge.drops import Drops
from tinyllava_edge.pictures import picture_key

_WEBP_HEADER_BYTES = 12


def utc_now_text() -> str:
    """Now in UTC as ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Frame:
    """A frame as it came. ``arrived_s`` is monotonic; ``seq`` counts a camera's frames from 1."""

    camera: str
    data: bytes
    seq: int
    captured_at: str = field(default_factory=utc_now_text)
    arrived_s: float = field(default_factory=time.monotonic)

    @cached_property
    def sha256(self) -> str:
        """Computed when first asked for: most frames are superseded without it."""
        return picture_key(self.data)

    def age_ms(self) -> int:
        """Whole milliseconds since the frame arrived."""
        return int((time.monotonic() - self.arrived_s) * 1000)


@dataclass
class _Slot:
    frame: Frame | None = None
    seq: int = 0
    asked: bool = False


class FrameStore:
    """Keeps one frame per camera and counts what it lets go.

    With ``cameras`` only those are taken; without, any name up to ``max_cameras``.
    """

    def __init__(
        self, cameras: Collection[str], drops: Drops, *, max_bytes: int, max_cameras: int
    ) -> None:
        self._lock = threading.Lock()
        self._slots = {name: _Slot() for name in cameras}
        self._open = not cameras
        self._drops = drops
        self._max_bytes = max_bytes
        self._max_cameras = max_cameras

    def put(self, camera: str, data: bytes) -> None:
        """Take a frame in constant time; one that cannot be a picture leaves the slot as it is."""
        cause = self._fault(data)
        if cause is not None:
            self._drops.count(cause)
            return
        with self._lock:
            slot = self._slot(camera)
            if slot is None:
                self._drops.count("frame_unknown_camera")
                return
            if slot.frame is not None and not slot.asked:
                self._drops.count("frame_superseded", camera, level=logging.DEBUG)
            slot.seq += 1
            slot.frame = Frame(camera, data, slot.seq)
            slot.asked = False

    def latest(self, camera: str) -> Frame | None:
        """The newest frame. Raises ``KeyError`` where there is no such camera."""
        with self._lock:
            slot = self._slots[camera]
            slot.asked = True
            return slot.frame

    def knows(self, camera: str) -> bool:
        """Whether the camera is configured or has sent a frame."""
        with self._lock:
            return camera in self._slots

    def state(self) -> dict[str, dict[str, int | None]]:
        """Each camera's name with age and number of its latest frame, None before the first."""
        with self._lock:
            frames = {name: slot.frame for name, slot in self._slots.items()}
        return {
            name: {
                "age_ms": frame.age_ms() if frame else None,
                "frame_seq": frame.seq if frame else None,
            }
            for name, frame in frames.items()
        }

    def _fault(self, data: bytes) -> str | None:
        if len(data) > self._max_bytes:
            return "frame_too_large"
        return None if looks_like_picture(data) else "frame_no_picture"

    def _slot(self, camera: str) -> _Slot | None:
        if camera not in self._slots:
            if not self._open or len(self._slots) >= self._max_cameras:
                return None
            self._slots[camera] = _Slot()
        return self._slots[camera]


def looks_like_picture(data: bytes) -> bool:
    """Whether the bytes start like JPEG, PNG or WebP: enough to spare a good frame from junk."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return True
    return data[:4] == b"RIFF" and data[8:_WEBP_HEADER_BYTES] == b"WEBP"
