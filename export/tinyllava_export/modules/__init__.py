"""A checkpoint's parts as torch modules in float32: language model, vision tower, connector.

Their state has the neutral names of ``checkpoints.contract``, so that they are filled, and graphs
of them written, one tensor at a time.
"""

from tinyllava_export.modules.language_model import build_language_model
from tinyllava_export.modules.requirements import require_tensors
from tinyllava_export.modules.towers import used_layers
from tinyllava_export.modules.vision_path import (
    VisionPath,
    build_vision_path,
    expected_vision_tensors,
)

__all__ = [
    "VisionPath",
    "build_language_model",
    "build_vision_path",
    "expected_vision_tensors",
    "require_tensors",
    "used_layers",
]
