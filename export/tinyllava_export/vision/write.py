"""From a checkpoint to ``vision.onnx``."""

from __future__ import annotations

from pathlib import Path

import torch

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.vision.int8 import quantize_products
from tinyllava_export.vision.skeleton import trace_vision
from tinyllava_export.vision.streamed import write_streamed

QUANTIZATION_OF_BITS = {8: "int8", 16: "fp16", 32: "fp32"}


def write_vision(checkpoint: Checkpoint, file: Path, *, bits: int) -> str:
    """Write ``vision.onnx`` and return what it was quantized to.

    8 bits: weights of the matrix products int8 per channel, activations quantized as they come.
    Input and output are float32 in any case, and the number of pictures in a call stays free. The
    same checkpoint gives the same bytes. Raises ``ExportError`` for other bits and for more than
    an ONNX file holds, ``CheckpointError`` for a tensor that is missing or damaged.
    """
    if bits not in QUANTIZATION_OF_BITS:
        known = ", ".join(str(known) for known in QUANTIZATION_OF_BITS)
        raise ExportError(f"--vision-bits {bits} is not known; known: {known}")
    skeleton = trace_vision(checkpoint, torch.float16 if bits == 16 else torch.float32)
    initializers = quantize_products(skeleton) if bits == 8 else list(skeleton.weights.values())
    write_streamed(skeleton.model, initializers, file)
    return QUANTIZATION_OF_BITS[bits]
