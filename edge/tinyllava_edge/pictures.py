"""Turn bytes from outside into an RGB picture, at a bounded cost, or refuse them in one line."""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinyllava_edge.errors import PictureError

FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112
# In the data of a JPEG 0xff is always followed by a marker, so this is found nowhere else but in
# an embedded thumbnail.
_START_OF_SCAN = b"\xff\xda"
MAX_JPEG_SCANS = 64
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's parsers are known to raise on damaged input; UnidentifiedImageError is an OSError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Silencing warnings changes a state of the whole process, so one picture at a time.
_QUIET = threading.Lock()


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may cost. Sides and aspect are bounded because padding squares them."""

    max_bytes: int = 16 << 20
    max_pixels: int = 32 << 20
    max_side_px: int = 8192
    max_aspect: float = 20.0


def picture_key(data: bytes) -> str:
    """The sha256 of a picture's bytes, in hex: what sights and answers name it by."""
    return hashlib.sha256(data).hexdigest()


def decode_picture(data: bytes, limits: PictureLimits | None = None) -> Image.Image:
    """Decode JPEG, PNG or WebP (its first frame) to mode RGB, upright by its EXIF orientation.

    Sizes are judged by the header, before any pixel is decoded. Alpha is dropped, 16-bit grey
    keeps its high byte. Raises ``PictureError`` and nothing else, whatever the bytes.
    """
    limits = limits or PictureLimits()
    if len(data) > limits.max_bytes:
        raise PictureError(
            f"picture of {len(data)} bytes, the limit is {limits.max_bytes}; send a smaller one"
        )
    if not data:
        raise PictureError("empty picture; send JPEG, PNG or WebP bytes")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(data)
        _check_size(image.size, limits)
        _check_scans(image, data)
        return _upright_rgb(image)


def _open(data: bytes) -> Image.Image:
    """Read the header. A size beyond Pillow's own bomb limit is refused here too."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(f"picture too large ({_line(error)}); send a smaller one") from None
    except _DAMAGE:
        raise PictureError(
            f"no JPEG, PNG or WebP picture (starts with {data[:8].hex(' ')}); "
            "check what the camera sends"
        ) from None


def _check_size(size: tuple[int, int], limits: PictureLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(f"picture of {width}x{height} pixels; check what the camera sends")
    if width * height > limits.max_pixels or max(size) > limits.max_side_px:
        raise PictureError(
            f"picture of {width}x{height} pixels, the limits are {limits.max_pixels} pixels and "
            f"{limits.max_side_px} a side; send a smaller one"
        )
    if max(size) > limits.max_aspect * min(size):
        raise PictureError(
            f"picture of {width}x{height} pixels is narrower than 1:{limits.max_aspect:g}; crop it"
        )


def _check_scans(image: Image.Image, data: bytes) -> None:
    """A progressive JPEG may go over the whole picture thousands of times; cameras need ten."""
    scans = data.count(_START_OF_SCAN) if image.format == "JPEG" else 0
    if scans > MAX_JPEG_SCANS:
        raise PictureError(
            f"JPEG of {scans} scans, the limit is {MAX_JPEG_SCANS}; send a baseline JPEG"
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    try:
        image.load()
        turn = _TURNS.get(_orientation(image))
        rgb = _rgb(image)
    except _DAMAGE as error:
        raise PictureError(
            f"damaged or truncated picture ({_line(error)}); send the frame again"
        ) from None
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where there is no EXIF or it is damaged, because the pixels are still good."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    # Pillow would clip 16-bit values at 255 instead of scaling them.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        high_byte = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    return image.convert("RGB")


def _line(error: BaseException) -> str:
    """The first line of a foreign error, short enough for a log."""
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__
