"""Decoding bytes from outside."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tinyllava_edge.errors import PictureError
from tinyllava_edge.pictures import PictureLimits, decode_picture, picture_key


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def decodes_or_refuses(data: bytes) -> None:
    """Whatever the bytes: an RGB picture or a ``PictureError`` of one line; no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = decode_picture(data)
        except PictureError as error:
            assert "\n" not in str(error)
        else:
            assert image.mode == "RGB"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_decode_picture_gives_rgb_when_the_format_is_known(gradient, encoded, form):
    picture = gradient(48, 40)
    image = decode_picture(encoded(picture, form))
    assert (image.mode, image.size) == ("RGB", (48, 40))
    if form == "PNG":
        assert image.tobytes() == picture.tobytes()


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_decode_picture_refuses_when_the_format_is_another(gradient, encoded, form):
    with pytest.raises(PictureError, match="no JPEG, PNG or WebP"):
        decode_picture(encoded(gradient(48, 40), form))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_decode_picture_gives_rgb_when_a_png_has_another_mode(gradient, encoded, mode):
    image = decode_picture(encoded(gradient(48, 40).convert(mode), "PNG"))
    assert image.mode == "RGB"
    expected = gradient(48, 40).convert(mode).convert("RGB")
    assert image.tobytes() == expected.tobytes()


def test_decode_picture_keeps_the_high_byte_when_grey_has_16_bits(encoded):
    values = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    image = decode_picture(encoded(Image.fromarray(values), "PNG"))
    assert np.array_equal(np.asarray(image)[..., 0], values >> 8)


def test_decode_picture_gives_near_colours_when_a_jpeg_is_cmyk(encoded):
    image = decode_picture(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    red, green, blue = image.getpixel((8, 8))
    assert red < 30
    assert min(green, blue) > 220


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_picture_turns_upright_when_exif_says_so(gradient, encoded, orientation):
    upright = gradient(24, 16)
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = upright if orientation == 1 else upright.transpose(stored[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_picture(encoded(turned, "PNG", exif=exif.tobytes()))
    assert image.size == (24, 16)
    assert image.tobytes() == upright.tobytes()


def test_decode_picture_keeps_the_pixels_when_exif_is_damaged(gradient, encoded):
    data = encoded(gradient(24, 16), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xffgarbage")
    assert decode_picture(data).size == (24, 16)


@pytest.mark.parametrize("size", [(10_000, 10_000), (40_000, 40_000), (9000, 10)])
def test_decode_picture_refuses_by_the_header_when_there_are_too_many_pixels(size):
    data = png_header(*size)
    assert len(data) < 200
    with pytest.raises(PictureError, match=r"pixels|too large"):
        decode_picture(data)


def test_decode_picture_refuses_when_the_bytes_exceed_the_limit(jpeg):
    with pytest.raises(PictureError, match="the limit is 100; send a smaller one"):
        decode_picture(jpeg, PictureLimits(max_bytes=100))


def test_decode_picture_refuses_when_it_is_a_thread_of_pixels(gradient, encoded):
    with pytest.raises(PictureError, match="narrower than 1:20"):
        decode_picture(encoded(gradient(210, 10), "PNG"))


def test_decode_picture_refuses_when_there_is_nothing():
    with pytest.raises(PictureError, match="empty picture"):
        decode_picture(b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_decode_picture_refuses_when_the_file_is_truncated(gradient, encoded, form, share):
    data = encoded(gradient(200, 160), form)
    with pytest.raises(PictureError):
        decode_picture(data[: int(len(data) * share)])


@given(st.binary(max_size=400))
@example(b"\xff\xd8\xff")
@example(b"\x89PNG\r\n\x1a\n")
@example(b"RIFF\x00\x00\x00\x00WEBPVP8 ")
def test_decode_picture_raises_picture_error_alone_when_given_anything(data):
    decodes_or_refuses(data)


@given(
    form=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    end=st.floats(0, 1),
)
def test_decode_picture_raises_picture_error_alone_when_bytes_are_changed(
    gradient, encoded, form, changes, end
):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encoded(gradient(48, 40), form, exif=exif.tobytes()))
    for where, value in changes:
        data[int(where * len(data))] = value
    decodes_or_refuses(bytes(data[: max(1, int(end * len(data)))]))


def test_picture_key_is_the_sha256_when_asked(jpeg):
    assert picture_key(jpeg) == hashlib.sha256(jpeg).hexdigest()
