"""The ONNX vision encoder."""

from __future__ import annotations

import numpy as np
import pytest

from tinyllava_edge.engines.vision import VisionEncoder
from tinyllava_edge.errors import BundleError


def changed(semantics, **parts):
    """Semantics with fields of its parts replaced."""
    new = {name: getattr(semantics, name).model_copy(update=f) for name, f in parts.items()}
    return semantics.model_copy(update=new)


def test_encode_gives_the_convolution_when_compared_with_numpy(tiny_model):
    import onnx
    from onnx import numpy_helper

    path = tiny_model.folder / "vision.onnx"
    kernel = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    pixels = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    patches = pixels.reshape(3, 4, 8, 4, 8).transpose(1, 3, 0, 2, 4).reshape(16, -1)
    expected = patches @ kernel.reshape(len(kernel), -1).T
    result = VisionEncoder(path, tiny_model.semantics, threads=1).encode(pixels)
    assert (result.shape, result.dtype) == ((16, 256), np.float32)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_encoder_refuses_when_the_image_size_differs_from_the_semantics(tiny_model):
    semantics = changed(tiny_model.semantics, image={"size": 64})
    with pytest.raises(BundleError, match=r"pixel_values has shape .*the manifest says"):
        VisionEncoder(tiny_model.folder / "vision.onnx", semantics, threads=1)


def test_encoder_refuses_when_the_image_tokens_differ_from_the_semantics(tiny_model):
    semantics = changed(tiny_model.semantics, connector={"image_tokens": 17})
    with pytest.raises(BundleError, match="image_embeds has shape"):
        VisionEncoder(tiny_model.folder / "vision.onnx", semantics, threads=1)


def test_encoder_refuses_in_one_line_when_the_file_is_no_onnx(tiny_model, tmp_path):
    path = tmp_path / "vision.onnx"
    path.write_bytes(b"no graph at all\n" * 10)
    with pytest.raises(BundleError, match="cannot be loaded") as caught:
        VisionEncoder(path, tiny_model.semantics, threads=1)
    assert "\n" not in str(caught.value)


def test_encode_refuses_when_the_pixels_have_another_shape(tiny_model):
    encoder = VisionEncoder(tiny_model.folder / "vision.onnx", tiny_model.semantics, threads=1)
    with pytest.raises(ValueError, match="expected"):
        encoder.encode(np.zeros((3, 16, 16), np.float32))
