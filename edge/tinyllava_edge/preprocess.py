"""From a picture to the tower's input, bit for bit as the training side's processors make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyllava_edge.semantics import ImageSemantics

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def pixels(image: Image.Image, semantics: ImageSemantics) -> NDArray[np.float32]:
    """Fit, resample and normalize an RGB picture to float32 ``[3, size, size]``.

    Resampling is Pillow's on 8-bit values, then ``(x / 255 - mean) / std`` in float32, which is
    what the image processors of CLIP and SigLIP compute.
    """
    fitted = _fit(image, semantics)
    scaled = np.asarray(fitted, dtype=np.float32) / np.float32(255)
    mean = np.asarray(semantics.mean, dtype=np.float32)
    std = np.asarray(semantics.std, dtype=np.float32)
    normalized = (scaled - mean) / std
    return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)


def _fit(image: Image.Image, semantics: ImageSemantics) -> Image.Image:
    size = semantics.size
    resample = _FILTERS[semantics.resample]
    if semantics.aspect == "squash":
        return image.resize((size, size), resample)
    if semantics.aspect == "pad":
        image = _padded(image, semantics.fill_rgb)
    return _cropped(image, size, semantics.short_side or size, resample)


def _padded(image: Image.Image, fill_rgb: tuple[int, int, int]) -> Image.Image:
    """Centre the picture on a square of the fill colour."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), fill_rgb)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def _cropped(
    image: Image.Image, size: int, short_side: int, resample: Image.Resampling
) -> Image.Image:
    """Scale the short side to ``short_side`` and cut out the middle (CLIP's processor)."""
    width, height = image.size
    short = min(width, height)
    target = (int(short_side * width / short), int(short_side * height / short))
    scaled = image.resize(target, resample)
    left = (scaled.width - size) // 2
    top = (scaled.height - size) // 2
    return scaled.crop((left, top, left + size, top + size))
