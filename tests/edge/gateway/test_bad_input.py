"""What should never come, through a broker: a clear answer or a count, and then a good request."""

import io
import json
import struct
import zlib

import pytest
from PIL import Image

GOOD = {"id": "bad", "camera": "porch", "question": "What colour?"}


def hundred_megapixel_png() -> bytes:
    """A valid header of 10,000 x 10,000 pixels and too little data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 16))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def real_hundred_megapixel_png() -> bytes:
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def gateway(start_gateway):
    return start_gateway()


@pytest.fixture
def still_works(listener, jpeg):
    """Whether a good frame and a good ask are answered, afterwards."""

    def check() -> bool:
        listener.publish("camera/porch/frame", jpeg)
        return listener.ask("good")["answer"] == "red"

    return check


@pytest.mark.parametrize(
    ("payload", "cause"), [(b"no picture", "frame_no_picture"), (b"", "frame_no_picture")]
)
def test_frame_is_counted_when_it_is_no_picture(gateway, listener, still_works, payload, cause):
    listener.publish("camera/porch/frame", payload)
    listener.health_until(lambda h: h["drops"].get(cause) == 1)
    assert still_works()


def test_frame_is_counted_when_it_is_too_large(start_gateway, listener, still_works):
    start_gateway(limits={"picture_bytes": 2048})
    listener.publish("camera/porch/frame", b"\xff\xd8\xff" + bytes(4096))
    listener.health_until(lambda h: h["drops"].get("frame_too_large") == 1)
    assert still_works()


@pytest.mark.parametrize("make", [hundred_megapixel_png, real_hundred_megapixel_png])
def test_ask_about_a_hundred_megapixel_png_is_an_error(gateway, listener, still_works, make):
    listener.publish("camera/porch/frame", make())
    answer = listener.ask("bad")
    assert (answer["outcome"], answer["error"]["code"]) == ("error", "bad_picture")
    assert "10000x10000" in answer["error"]["message"]
    assert still_works()


def test_ask_about_a_truncated_jpeg_is_an_error(gateway, listener, still_works, jpeg):
    listener.publish("camera/porch/frame", jpeg[: len(jpeg) // 2])
    answer = listener.ask("bad")
    assert (answer["outcome"], answer["error"]["code"]) == ("error", "bad_picture")
    assert still_works()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"question": None}, "invalid_ask"),
        ({"camera": None}, "invalid_ask"),
        ({"camera": 7}, "invalid_ask"),
        ({"surprise": 1}, "invalid_ask"),
        ({"kind": "choice"}, "invalid_ask"),
        ({"camera": "nowhere"}, "unknown_camera"),
        ({"sensors": ["nothing"]}, "no_reading"),
        ({"camera": None, "image": "%%%"}, "bad_picture"),
        ({"camera": None, "image": "aGVsbG8="}, "bad_picture"),
    ],
)
def test_ask_with_a_readable_id_gets_an_error_answer(
    gateway, listener, still_works, jpeg, changes, code
):
    listener.publish("camera/porch/frame", jpeg)
    fields = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    listener.publish("ask", json.dumps(fields))
    answer = listener.answer("bad")
    assert (answer["outcome"], answer["error"]["code"]) == ("error", code)
    assert answer["error"]["message"]
    assert still_works()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kind": "json", "schema": {}}, "unsupported"),
        ({"stream": True}, "unsupported"),
        ({"reply_to": "elsewhere/x"}, "reply_to_not_allowed"),
    ],
)
def test_ask_for_what_is_not_offered_is_rejected(gateway, listener, jpeg, changes, code):
    listener.publish("camera/porch/frame", jpeg)
    answer = listener.ask("bad", **changes)
    assert (answer["outcome"], answer["error"]["code"]) == ("rejected", code)


def test_ask_with_too_many_questions_is_rejected(start_gateway, listener, jpeg):
    start_gateway(limits={"questions": 2})
    listener.publish("camera/porch/frame", jpeg)
    listener.publish("ask", json.dumps({"id": "bad", "camera": "porch", "questions": ["?"] * 3}))
    assert listener.answer("bad")["error"]["code"] == "too_many_questions"


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"",
        b"\xff\xfe\x00",
        b"[" * 50_000,
        b'{"camera": "porch", "question": "?"}',
        b'{"id": "../../status", "camera": "porch", "question": "?"}',
        b'{"id": "+", "camera": "porch", "question": "?"}',
        b"null",
    ],
)
def test_ask_without_a_usable_id_is_counted(gateway, listener, still_works, payload):
    listener.publish("ask", payload)
    listener.health_until(lambda h: h["drops"].get("ask_invalid_ask") == 1)
    assert still_works()


def test_ask_of_many_megabytes_is_counted(start_gateway, listener, still_works):
    start_gateway(limits={"picture_bytes": 2048})
    listener.publish("ask", json.dumps({**GOOD, "question": "x" * 400_000}))
    listener.health_until(lambda h: h["drops"].get("ask_too_large") == 1)
    assert still_works()


def test_retained_ask_is_rejected_and_retained_frame_counted(start_gateway, listener, jpeg):
    listener.publish("ask", json.dumps(GOOD), retain=True)
    listener.publish("camera/porch/frame", jpeg, retain=True)
    try:
        start_gateway(cameras={"porch": {}})
        assert listener.answer("bad")["error"]["code"] == "retained"
        listener.health_until(lambda h: "frame_retained" in h["drops"])
        assert listener.ask("now")["error"]["code"] == "no_frame"
    finally:
        listener.publish("ask", b"", retain=True)
        listener.publish("camera/porch/frame", b"", retain=True)


def test_unreadable_reading_is_counted(gateway, listener, still_works):
    listener.publish("sensor/t", b"\xff\xff")
    listener.health_until(lambda h: h["drops"].get("sensor_unreadable") == 1)
    assert still_works()
