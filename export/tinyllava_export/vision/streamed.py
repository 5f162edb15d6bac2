"""An ONNX file written one tensor at a time.

ONNX is protobuf: a model holds a graph, the graph its tensors. All lengths follow from shapes, so
the file can be written front to back while each tensor is made when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray

from tinyllava_export.errors import ExportError

MAX_BYTES = (1 << 31) - 1  # protobuf's limit on a message
LENGTH_DELIMITED = 2
GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorOutline:
    """A tensor of the file: all but its numbers."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def data_bytes(self) -> int:
        """Size of the numbers alone."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def header(self) -> bytes:
        """The serialized tensor up to its numbers."""
        kind = onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        proto = onnx.TensorProto(name=self.name, dims=self.shape, data_type=kind)
        return bytes(proto.SerializeToString()) + _field(RAW_DATA, self.data_bytes)


@dataclass(frozen=True)
class Initializers:
    """Tensors that are made together: their outlines, and what makes them when they are due."""

    outlines: tuple[TensorOutline, ...]
    make: Callable[[], Sequence[Array]]


def write_streamed(
    model: onnx.ModelProto, initializers: Sequence[Initializers], file: Path
) -> None:
    """Write ``model`` with ``initializers`` added to its graph.

    Raises ``ExportError`` where the file would be longer than a protobuf message can be.
    """
    head = onnx.ModelProto()
    head.CopyFrom(model)
    head.ClearField("graph")
    graph = model.graph.SerializeToString(deterministic=True)
    outlines = [outline for group in initializers for outline in group.outlines]
    length = len(graph) + sum(_field_bytes(outline) for outline in outlines)
    if length > MAX_BYTES:
        raise ExportError(
            f"{file.name} would have {length >> 20} MiB, an ONNX file holds at most "
            f"{MAX_BYTES >> 20}; use --vision-bits 16 or 8"
        )
    with file.open("wb") as out:
        out.write(head.SerializeToString(deterministic=True))
        out.write(_field(GRAPH, length))
        out.write(graph)
        for group in initializers:
            for outline, numbers in zip(group.outlines, group.make(), strict=True):
                _write_tensor(out, outline, numbers)


def _write_tensor(out: BinaryIO, outline: TensorOutline, numbers: Array) -> None:
    if numbers.shape != outline.shape or numbers.dtype != outline.dtype:
        raise ExportError(
            f"{outline.name}: {numbers.dtype}{list(numbers.shape)} came where "
            f"{outline.dtype}{list(outline.shape)} was announced; the checkpoint changed meanwhile"
        )
    header = outline.header()
    out.write(_field(INITIALIZER, len(header) + outline.data_bytes))
    out.write(header)
    little_endian = np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<"))
    out.write(little_endian.reshape(-1).data)


def _field_bytes(outline: TensorOutline) -> int:
    length = len(outline.header()) + outline.data_bytes
    return len(_field(INITIALIZER, length)) + length


def _field(number: int, length: int) -> bytes:
    """Key and length of a length-delimited protobuf field."""
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    """Base 128, lowest seven bits first, the top bit of a byte telling that more follow."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
