import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper

from tinyllava_export.errors import ExportError
from tinyllava_export.vision.streamed import (
    MAX_BYTES,
    Initializers,
    TensorOutline,
    write_streamed,
)

DTYPES = st.sampled_from([np.float32, np.float16, np.int8, np.int64])
TENSORS = st.lists(
    DTYPES.flatmap(
        lambda dtype: arrays.arrays(
            dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70)
        )
    ),
    max_size=5,
)


def model():
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    kept = helper.make_tensor("kept", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = helper.make_graph([node], "tiny", [value], [result], [kept])
    return helper.make_model(graph, producer_name="test")


def initializer(name, array):
    outline = TensorOutline(name, array.dtype, array.shape)
    return Initializers((outline,), lambda: [array])


@given(tensors=TENSORS)
def test_streamed_file_is_the_model_with_its_tensors(tmp_path_factory, tensors):
    file = tmp_path_factory.mktemp("streamed") / "m.onnx"
    named = {f"t{index}": tensor for index, tensor in enumerate(tensors)}
    write_streamed(model(), [initializer(*item) for item in named.items()], file)
    expected = model()
    for name, tensor in named.items():
        expected.graph.initializer.append(onnx.numpy_helper.from_array(tensor, name))
    assert onnx.load(str(file)) == expected


def test_tensors_that_belong_together_are_made_once(tmp_path):
    calls = []

    def make():
        calls.append(None)
        return [np.ones(3, dtype=np.int8), np.zeros((2, 2), dtype=np.float32)]

    outlines = (
        TensorOutline("a", np.dtype(np.int8), (3,)),
        TensorOutline("b", np.dtype(np.float32), (2, 2)),
    )
    write_streamed(model(), [Initializers(outlines, make)], tmp_path / "m.onnx")
    names = [tensor.name for tensor in onnx.load(str(tmp_path / "m.onnx")).graph.initializer]
    assert names == ["kept", "a", "b"]
    assert len(calls) == 1


def test_transposed_numbers_are_written_in_the_order_of_their_shape(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_streamed(model(), [initializer("m", matrix)], tmp_path / "m.onnx")
    stored = onnx.load(str(tmp_path / "m.onnx")).graph.initializer[-1]
    assert np.array_equal(onnx.numpy_helper.to_array(stored), matrix)


def test_more_than_a_file_holds_is_refused_before_anything_is_made(tmp_path):
    outline = TensorOutline("huge", np.dtype(np.float32), (MAX_BYTES // 4 + 1,))
    with pytest.raises(ExportError, match=r"m.onnx would have 2048 MiB.*use --vision-bits 16"):
        write_streamed(model(), [Initializers((outline,), list)], tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    "numbers", [np.zeros((3, 2), dtype=np.float32), np.zeros((2, 3), dtype=np.float16)]
)
def test_numbers_other_than_announced_are_refused(tmp_path, numbers):
    outline = TensorOutline("t", np.dtype(np.float32), (2, 3))
    with pytest.raises(ExportError, match=r"t: .* came where float32\[2, 3\] was announced"):
        write_streamed(model(), [Initializers((outline,), lambda: [numbers])], tmp_path / "m.onnx")
