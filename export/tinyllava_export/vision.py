"""Tower and connector as ``vision.onnx``, in float32, float16 or with int8 matrix products."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from tinyllava_edge.engines.vision import INPUT, OUTPUT
from tinyllava_export.errors import ExportError
from tinyllava_export.modules import VisionPath

OPSET = 18
QUANTIZATION_OF_BITS = {8: "int8", 16: "fp16", 32: "fp32"}


def write_vision(path: VisionPath, file: Path, *, size: int, bits: int, scratch: Path) -> str:
    """Write ``vision.onnx`` for pictures of ``size`` and return what it was quantized to.

    8 bits: weights of the matrix products int8 per channel, activations quantized as they come.
    The number of pictures in a call stays free. ``scratch`` takes intermediate files. Raises
    ``ExportError`` for other bits.
    """
    if bits not in QUANTIZATION_OF_BITS:
        known = ", ".join(str(known) for known in QUANTIZATION_OF_BITS)
        raise ExportError(f"--vision-bits {bits} is not known; known: {known}")
    full = scratch / "vision-fp32.onnx"
    _write_float32(path, full, size)
    if bits == 32:
        full.replace(file)
    elif bits == 16:
        _write_float16(full, file)
    else:
        _write_int8(full, file)
    return QUANTIZATION_OF_BITS[bits]


def _write_float32(path: VisionPath, file: Path, size: int) -> None:
    # Two pictures, because the exporter takes a size of one for a constant.
    example = torch.zeros(2, 3, size, size)
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            path,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("pictures")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx gave no graph for the vision tower; use torch 2.6 or newer")
    _save_without_traces(program.model_proto, file)


def _save_without_traces(model: object, file: Path) -> None:
    """Drop the exporter's notes (source paths of this machine) so that bytes repeat."""
    assert isinstance(model, onnx.ModelProto)
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    onnx.save_model(model, str(file))


def _write_float16(source: Path, file: Path) -> None:
    """Half precision inside; input and output stay float32."""
    model = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
    onnx.save_model(model, str(file))


def _write_int8(source: Path, file: Path) -> None:

    with _quiet_exporter():
        quantize_dynamic(
            source,
            file,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # 7 bits of range: x86 processors without VNNI add two 8-bit products in 16 bits, which
            # would overflow there and give other features than on the machine that measured.
            reduce_range=True,
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporters' notes on their own inner workings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
