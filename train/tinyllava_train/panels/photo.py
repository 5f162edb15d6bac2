"""From a drawing to a camera's JPEG: rotation, light, blur, noise, compression."""

from __future__ import annotations

import io
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tinyllava_train.panels.scene import Scene


def take_photo(scene: Scene) -> bytes:
    """Photograph a scene: JPEG bytes, fixed by the scene's seed."""
    rng = Random(f"photo {scene.seed}")
    image = scene.draw()
    angle = rng.gauss(0.0, 2.0)
    edge = image.getpixel((1, image.height // 2))
    image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=edge)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.1)))
    lit = _light(np.asarray(image, dtype=np.float32), rng)
    noisy = _noise(lit, rng)
    buffer = io.BytesIO()
    photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    photo.save(buffer, "JPEG", quality=rng.randint(45, 95))
    return buffer.getvalue()


def _light(pixels: NDArray[np.float32], rng: Random) -> NDArray[np.float32]:
    """Brightness, colour temperature, and a gradient across the picture."""
    height, width, _ = pixels.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * rng.uniform(-0.18, 0.18)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.uniform(-0.18, 0.18)
    warmth = rng.uniform(-0.08, 0.08)
    tint = np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32)
    brightness = rng.uniform(0.65, 1.2)
    lit = pixels * (brightness * (1 + across + down))[..., None] * tint
    return lit.astype(np.float32, copy=False)


def _noise(pixels: NDArray[np.float32], rng: Random) -> NDArray[np.float32]:
    """Sensor noise, drawn from the scene's own stream."""
    generator = np.random.default_rng(rng.getrandbits(32))
    strength = np.float32(rng.uniform(0.0, 9.0))
    noise = generator.standard_normal(pixels.shape, dtype=np.float32)
    noisy: NDArray[np.float32] = pixels + strength * noise
    return noisy
