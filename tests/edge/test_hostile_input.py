"""What a client or a file could send to hold or end the gateway; each of these once did."""

import io

import pytest
from PIL import Image

from tinyllava_edge.config import parse_config
from tinyllava_edge.errors import ConfigError, PictureError
from tinyllava_edge.pictures import MAX_JPEG_SCANS, decode_picture
from tinyllava_edge.semantics import ImageSemantics, SensorSemantics
from tinyllava_edge.topics import is_topic_name


def progressive_jpeg(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def test_progressive_jpeg_is_refused_when_it_has_too_many_scans():
    assert decode_picture(progressive_jpeg(0)).size == (64, 64)
    with pytest.raises(PictureError, match=r"scans, the limit is 64"):
        decode_picture(progressive_jpeg(MAX_JPEG_SCANS))


def test_sixteen_bit_grey_keeps_its_high_byte():
    buffer = io.BytesIO()
    Image.new("I;16", (2, 2), 0x80FF).save(buffer, "PNG")
    assert decode_picture(buffer.getvalue()).getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_topic_is_refused_when_brokers_would_disconnect_for_its_depth():
    assert is_topic_name("tinyllava/replies/one")
    assert not is_topic_name("tinyllava/" + "/" * 215)


@pytest.mark.parametrize("tag", ['!!int ""', '!!float ""', '!!bool "x"', '!!timestamp "x"'])
def test_configuration_is_refused_in_one_line_when_a_tag_does_not_fit(tag):
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        parse_config(f"gateway: {tag}\n".encode(), "c.yaml")


@pytest.mark.timeout(20)
def test_configuration_is_refused_at_once_when_aliases_multiply():
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="unknown key"):
        parse_config("\n".join(lines).encode(), "c.yaml")


@pytest.mark.parametrize("item", ["{nope}", "{", "{name.nope}"])
def test_sensor_form_is_refused_when_it_cannot_be_filled_in(item):
    with pytest.raises(ValueError, match="cannot be filled in"):
        SensorSemantics(item=item)


def test_semantics_are_refused_when_pixels_would_be_divided_by_zero():
    with pytest.raises(ValueError, match="greater than 0"):
        ImageSemantics(size=8, aspect="pad", mean=(0, 0, 0), std=(0, 0.5, 0.5))
