"""Matrix products in int8: weights per output channel, activations quantized as they come."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tinyllava_export.vision.skeleton import Skeleton
from tinyllava_export.vision.streamed import Array, Initializers, TensorOutline

# 7 bits of range: x86 processors without VNNI add two 8-bit products in 16 bits, which would
# overflow there and give other features than on the machine that measured.
LARGEST = 64
FLOAT, INT8 = np.dtype(np.float32), np.dtype(np.int8)


def quantize_products(skeleton: Skeleton) -> list[Initializers]:
    """Rewrite the products of ``skeleton.model`` and return what it needs in place of its weights.

    The nodes are those that ONNX Runtime's own dynamic quantization writes, which its providers
    fuse. Products of two activations (attention) stay float.
    """
    weights = dict(skeleton.weights)
    nodes: list[onnx.NodeProto] = []
    activations: set[str] = set()
    for node in skeleton.model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        activation, weight = node.input
        if activation not in activations:
            activations.add(activation)
            nodes.append(_quantize_activation(activation))
        nodes += _integer_product(activation, weight, node.output[0])
        weights[weight] = _quantized(skeleton.weights[weight])
    del skeleton.model.graph.node[:]
    skeleton.model.graph.node.extend(nodes)
    return list(weights.values())


def quantize_channels(matrix: Array) -> tuple[Array, Array]:
    """int8 ``[in, out]`` and float32 ``[out]`` whose product is ``matrix`` up to rounding."""
    scale = (np.abs(matrix).max(axis=0) / LARGEST).astype(np.float32)
    scale[scale == 0] = 1
    return np.rint(matrix / scale).astype(np.int8), scale


def _quantized(weight: Initializers) -> Initializers:
    """The matrix as int8, with a scale and a zero point a column."""
    (outline,) = weight.outlines
    columns = outline.shape[1:]

    def make() -> list[Array]:
        (matrix,) = weight.make()
        numbers, scale = quantize_channels(matrix)
        return [numbers, scale, np.zeros(columns, dtype=INT8)]

    outlines = (
        TensorOutline(f"{outline.name}_quantized", INT8, outline.shape),
        TensorOutline(f"{outline.name}_scale", FLOAT, columns),
        TensorOutline(f"{outline.name}_zero_point", INT8, columns),
    )
    return Initializers(outlines, make)


def _quantize_activation(activation: str) -> onnx.NodeProto:
    names = [f"{activation}_{part}" for part in ("quantized", "scale", "zero_point")]
    return helper.make_node(
        "DynamicQuantizeLinear", [activation], names, name=f"{activation}_QuantizeLinear"
    )


def _integer_product(activation: str, weight: str, output: str) -> list[onnx.NodeProto]:
    """``output`` from the quantized activation and weight."""
    operands = [f"{value}_quantized" for value in (activation, weight)]
    operands += [f"{value}_zero_point" for value in (activation, weight)]
    scales = [f"{value}_scale" for value in (activation, weight)]
    integer, unscaled, product_scale = (
        f"{output}_{part}" for part in ("integer", "unscaled", "product_scale")
    )
    steps = [
        ("MatMulInteger", operands, integer, {}),
        ("Cast", [integer], unscaled, {"to": onnx.TensorProto.FLOAT}),
        ("Mul", scales, product_scale, {}),
        ("Mul", [unscaled, product_scale], output, {}),
    ]
    return [
        helper.make_node(kind, inputs, [result], name=f"{result}_{kind}", **settings)
        for kind, inputs, result, settings in steps
    ]
