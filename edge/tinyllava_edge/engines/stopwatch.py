"""The milliseconds that a reply reports, by what they were spent on."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter


def since_ms(started: float) -> float:
    """Milliseconds since a ``perf_counter`` reading."""
    return (perf_counter() - started) * 1000


@dataclass
class Stopwatch:
    """Times one ask. ``vision_ms`` and ``prefix_ms`` are 0 where the picture's work was reused."""

    vision_ms: float = 0.0
    prefix_ms: float = 0.0
    prompt_ms: float = 0.0
    started: float = field(default_factory=perf_counter)
    decode_started: float = 0.0

    def start_decoding(self) -> None:
        """The questions of a group have been read; from here on their answers are decoded."""
        self.decode_started = perf_counter()

    def timings_ms(self) -> dict[str, float]:
        """What an answer that is complete now has taken; ``total`` includes waiting for others."""
        return {
            "vision": self.vision_ms,
            "prefix": self.prefix_ms,
            "prompt": self.prompt_ms,
            "decode": since_ms(self.decode_started),
            "total": self.vision_ms + since_ms(self.started),
        }
