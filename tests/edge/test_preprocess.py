"""Pixels, compared with what transformers' own image processors compute."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tinyllava_edge.preprocess import pixels
from tinyllava_edge.semantics import ImageSemantics

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
SHAPES = [(61, 47), (47, 61), (50, 50), (133, 40)]


def siglip(aspect, **fields):
    return ImageSemantics(size=32, aspect=aspect, mean=HALF, std=HALF, **fields)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_equal_siglips_processor_when_squashed(gradient, shape):
    from transformers import SiglipImageProcessor

    picture = gradient(*shape)
    processor = SiglipImageProcessor(size={"height": 32, "width": 32}, resample=3)
    expected = processor(picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(pixels(picture, siglip("squash")), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_equal_clips_processor_when_cropped(gradient, shape):
    from transformers import CLIPImageProcessor

    picture = gradient(*shape)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    expected = processor(picture, return_tensors="np")["pixel_values"][0]
    semantics = ImageSemantics(size=32, aspect="crop", mean=CLIP_MEAN, std=CLIP_STD)
    np.testing.assert_allclose(pixels(picture, semantics), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_equal_dinov2s_processor_when_the_short_side_is_longer(gradient, shape):
    from transformers import BitImageProcessor

    picture = gradient(*shape)
    processor = BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    expected = processor(picture, return_tensors="np")["pixel_values"][0]
    semantics = ImageSemantics(
        size=32,
        aspect="crop",
        short_side=40,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
    np.testing.assert_allclose(pixels(picture, semantics), expected, rtol=0, atol=1e-6)
    whole = semantics.model_copy(update={"short_side": None})
    assert not np.allclose(pixels(picture, whole), expected, atol=0.01)


@pytest.mark.parametrize(("shape", "box"), [((60, 40), (0, 10)), ((40, 60), (10, 0))])
def test_pixels_centre_the_picture_on_the_fill_when_padded(gradient, shape, box):
    picture = gradient(*shape)
    square = Image.new("RGB", (60, 60), (1, 2, 3))
    square.paste(picture, box)
    padded = pixels(picture, siglip("pad", fill_rgb=(1, 2, 3)))
    assert np.array_equal(padded, pixels(square, siglip("squash")))
    assert not np.array_equal(padded, pixels(picture, siglip("squash")))


def test_pixels_are_float32_channels_first_when_the_colour_is_known():
    picture = Image.new("RGB", (5, 9), (255, 0, 127))
    result = pixels(picture, siglip("squash"))
    assert result.shape == (3, 32, 32)
    assert result.dtype == np.float32
    assert result.flags["C_CONTIGUOUS"]
    assert result[:, 0, 0] == pytest.approx([1.0, -1.0, 127 / 127.5 - 1], abs=1e-6)


@pytest.mark.parametrize("resample", ["bilinear", "lanczos", "nearest"])
def test_pixels_differ_when_the_filter_differs(gradient, resample):
    picture = gradient(61, 47)
    other = pixels(picture, siglip("squash", resample=resample))
    assert not np.array_equal(other, pixels(picture, siglip("squash")))
