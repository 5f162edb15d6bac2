"""What a board can hold: memory, processors and the numbers a plan needs.

Knows machines and model shapes as numbers; opens no model file and loads no runtime.
"""

from tinyllava_devices.footprint import Footprint, kv_kib_per_token, vision_activation_mib
from tinyllava_devices.memory import Memory, read_memory
from tinyllava_devices.plan import DoesNotFit, MemoryPlan, plan_memory

__all__ = [
    "DoesNotFit",
    "Footprint",
    "Memory",
    "MemoryPlan",
    "kv_kib_per_token",
    "plan_memory",
    "read_memory",
    "vision_activation_mib",
]
