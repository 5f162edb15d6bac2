"""Whether a model fits a machine, and how its memory is split."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyllava_devices.footprint import KIB, Footprint
from tinyllava_devices.memory import Memory

RESERVED_MIB = 128.0
"""Left to the runtimes themselves: 73 MiB of private memory for Python with ONNX Runtime and
llama.cpp loaded (x86-64, psutil's ``uss`` before any model is opened), the rest for scratch."""


@dataclass(frozen=True)
class MemoryPlan:
    """How memory is split, in MiB; the parts with ``free_mib`` add up to what was available."""

    weights_mib: float
    vision_mib: float
    kv_mib: float
    reserved_mib: float
    free_mib: float
    context_tokens: int

    @property
    def needed_mib(self) -> float:
        """All that the model takes with this context."""
        return self.weights_mib + self.vision_mib + self.kv_mib + self.reserved_mib


class DoesNotFit(Exception):
    """The model does not fit; the message says by how much and what would fit.

    ``shortfall_mib`` is what is missing, ``largest_context_tokens`` the longest context that
    would fit (0 where not even the weights do).
    """

    def __init__(self, message: str, *, shortfall_mib: float, largest_context_tokens: int) -> None:
        super().__init__(message)
        self.shortfall_mib = shortfall_mib
        self.largest_context_tokens = largest_context_tokens


def plan_memory(
    footprint: Footprint,
    memory: Memory,
    *,
    context_tokens: int,
    reserved_mib: float = RESERVED_MIB,
) -> MemoryPlan:
    """Split the available memory among weights, vision tower and KV cache, in MiB.

    Leaves ``reserved_mib`` to the runtimes. Raises ``DoesNotFit`` with the shortfall and the
    largest context that would fit, ``ValueError`` for a context of no tokens.
    """
    if context_tokens < 1:
        raise ValueError(f"context_tokens is {context_tokens}; give at least 1")
    kv_mib = footprint.kv_mib(context_tokens)
    fixed_mib = footprint.weights_mib + footprint.vision_activation_mib + reserved_mib
    free_mib = memory.available_mib - fixed_mib - kv_mib
    plan = MemoryPlan(
        weights_mib=footprint.weights_mib,
        vision_mib=footprint.vision_activation_mib,
        kv_mib=kv_mib,
        reserved_mib=reserved_mib,
        free_mib=free_mib,
        context_tokens=context_tokens,
    )
    if free_mib < 0:
        left_for_kv_mib = memory.available_mib - fixed_mib
        raise _does_not_fit(plan, memory, _largest_context(footprint, left_for_kv_mib))
    return plan


def _largest_context(footprint: Footprint, left_mib: float) -> int:
    # Only asked when something does not fit: with a KV cache that costs nothing, nothing fits.
    if left_mib <= 0 or footprint.kv_kib_per_token == 0:
        return 0
    return math.floor(left_mib * KIB / footprint.kv_kib_per_token)


def _does_not_fit(plan: MemoryPlan, memory: Memory, largest: int) -> DoesNotFit:
    shortfall = -plan.free_mib
    advice = (
        f"a context of at most {largest} tokens fits"
        if largest
        else "no context fits: free memory, export with fewer bits or choose a larger board"
    )
    return DoesNotFit(
        f"a context of {plan.context_tokens} tokens needs {plan.needed_mib:.0f} MiB "
        f"(weights {plan.weights_mib:.0f}, vision {plan.vision_mib:.0f}, "
        f"KV cache {plan.kv_mib:.0f}, runtime {plan.reserved_mib:.0f}) and "
        f"{memory.available_mib:.0f} MiB are available, {shortfall:.0f} MiB short; {advice}",
        shortfall_mib=shortfall,
        largest_context_tokens=largest,
    )
