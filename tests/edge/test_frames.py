"""The latest frame of each camera, and the count of every other one."""

import hashlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.drops import Drops
from tinyllava_edge.frames import FrameStore

JPEG = b"\xff\xd8\xff\xe0 one"
NEWER = b"\xff\xd8\xff\xe0 two"


def store(*cameras: str, max_bytes: int = 1000, max_cameras: int = 2) -> tuple[FrameStore, Drops]:
    drops = Drops()
    return FrameStore(cameras, drops, max_bytes=max_bytes, max_cameras=max_cameras), drops


def test_latest_is_the_newest_frame_with_its_origin():
    frames, _ = store("porch")
    frames.put("porch", JPEG)
    frames.put("porch", NEWER)
    frame = frames.latest("porch")
    assert frame is not None
    assert (frame.data, frame.seq, frame.camera) == (NEWER, 2, "porch")
    assert frame.sha256 == hashlib.sha256(NEWER).hexdigest()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", frame.captured_at)


def test_frame_is_counted_as_superseded_only_when_nobody_asked_about_it():
    frames, drops = store("porch")
    frames.put("porch", JPEG)
    frames.latest("porch")
    frames.put("porch", NEWER)
    assert drops.snapshot() == {}
    frames.put("porch", JPEG)
    assert drops.snapshot() == {"frame_superseded": 1}


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "frame_no_picture"),
        (b"hello", "frame_no_picture"),
        (b"GIF89a....", "frame_no_picture"),
        (b"\xff\xd8\xff" + bytes(1000), "frame_too_large"),
    ],
)
def test_bad_frame_is_counted_and_leaves_the_good_one_in_place(data, cause):
    frames, drops = store("porch")
    frames.put("porch", JPEG)
    frames.put("porch", data)
    assert drops.snapshot() == {cause: 1}
    frame = frames.latest("porch")
    assert frame is not None
    assert frame.data == JPEG


def test_cameras_are_bounded_when_none_is_configured():
    frames, drops = store(max_cameras=2)
    for name in ("a", "b", "c", "a"):
        frames.put(name, JPEG)
    assert [frames.knows(name) for name in "abc"] == [True, True, False]
    assert drops.snapshot() == {"frame_superseded": 1, "frame_unknown_camera": 1}


def test_unconfigured_camera_is_refused_when_others_are_configured():
    frames, drops = store("porch")
    frames.put("other", JPEG)
    assert drops.snapshot() == {"frame_unknown_camera": 1}
    assert frames.latest("porch") is None


def test_age_grows_with_time_and_is_none_before_the_first_frame():
    frames, _ = store("porch", "drive")
    frames.put("porch", JPEG)
    time.sleep(0.02)
    ages = {name: state["age_ms"] for name, state in frames.state().items()}
    assert ages["drive"] is None
    assert ages["porch"] is not None
    assert 20 <= ages["porch"] < 5000


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.binary(max_size=20))))
def test_every_frame_is_kept_or_counted_whatever_comes(messages):
    frames, drops = store(max_bytes=15, max_cameras=2)
    for camera, data in messages:
        frames.put(camera, data)
    kept = sum(frames.latest(name) is not None for name in frames.state())
    assert kept + sum(drops.snapshot().values()) == len(messages)
