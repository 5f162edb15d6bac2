"""The graph of tower and connector without its weights, as torch's exporter traces it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch

from tinyllava_edge.engines.vision import INPUT, OUTPUT
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.modules.vision_path import (
    VisionPath,
    neutral_names,
    read_vision_tensor,
    reserved_vision_path,
)
from tinyllava_export.vision.streamed import Array, Initializers, TensorOutline

OPSET = 18
NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float16: np.dtype(np.float16),
    torch.float32: np.dtype(np.float32),
}


@dataclass(frozen=True)
class Skeleton:
    """A graph and, by their names in it, the weights that it is yet to be given."""

    model: onnx.ModelProto
    weights: dict[str, Initializers]


def trace_vision(checkpoint: Checkpoint, dtype: torch.dtype) -> Skeleton:
    """The graph with weights and products in ``dtype``, input and output in float32.

    The number of pictures in a call stays free. Reads no weight.
    """
    path = reserved_vision_path(checkpoint, dtype)
    program = _trace(path, checkpoint.semantics.image.size)
    initializers = program.model.graph.initializers
    names = dict(neutral_names(path))
    if lost := names.keys() - initializers.keys():
        raise ExportError(f"torch.onnx lost {min(lost)}; this release of torch is not known")
    for name in names:
        # What stands in memory now is no weight: nothing may be computed from it.
        initializers[name].const_value = None
    with _quiet_exporter():
        program.optimize()
    for name in names:
        program.model.graph.initializers.pop(name)
    weights = {
        name: _weight(checkpoint, name, names[name], target)
        for name, target in path.state_dict().items()
    }
    model = onnx_ir.to_proto(program.model)
    _forget_origins(model)
    _fold_transposes(model, weights)
    return Skeleton(model, weights)


def _trace(path: VisionPath, size: int) -> Any:
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
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx gave no graph for the vision tower; use torch 2.6 or newer")
    return program


def _weight(checkpoint: Checkpoint, name: str, source: str, target: torch.Tensor) -> Initializers:
    """The tensor of that neutral name, as the module holds it."""
    shape, dtype = tuple(target.shape), target.dtype

    def make() -> list[Array]:
        return [read_vision_tensor(checkpoint, source, shape).to(dtype).numpy()]

    return Initializers((TensorOutline(name, NUMPY_DTYPES[dtype], shape),), make)


def _fold_transposes(model: onnx.ModelProto, weights: dict[str, Initializers]) -> None:
    """Turn matrices that the graph only uses transposed, which spares a runtime the work."""
    kept = []
    turned: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in weights:
            turned[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    for output, name in turned.items():
        if name in used:
            raise ExportError(f"{name}: used as it is and transposed; this graph is not known")
        weights[name] = _transposed(weights[name])
        for node in kept:
            for index, value in enumerate(node.input):
                if value == output:
                    node.input[index] = name
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _transposed(weight: Initializers) -> Initializers:
    (outline,) = weight.outlines

    def make() -> list[Array]:
        (numbers,) = weight.make()
        return [numbers.T]

    return Initializers((TensorOutline(outline.name, outline.dtype, outline.shape[::-1]),), make)


def _forget_origins(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source paths of this machine) so that bytes repeat."""
    for item in (model, model.graph, *model.graph.node):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    # Shapes on the way, which a runtime infers itself and which later passes would outdate.
    del model.graph.value_info[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporters' notes on their own inner workings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
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
