"""Whether a checkpoint holds what its configuration promises; found out before anything is read."""

from __future__ import annotations

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.modules.language_model import expected_text_tensors
from tinyllava_export.modules.vision_path import expected_vision_tensors
from tinyllava_export.modules.weights import require_tensor


def require_tensors(checkpoint: Checkpoint) -> None:
    """Raise ``CheckpointError`` where a tensor is missing or has another shape than it should.

    Compares with modules built without memory, so it costs little at any size.
    """
    expected = expected_text_tensors(checkpoint) | expected_vision_tensors(checkpoint)
    for name, shape in expected.items():
        require_tensor(checkpoint, name, shape)
