"""Readings from numbers, texts and JSON; how old they are; what cannot be read."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.drops import Drops
from tinyllava_edge.sensors import SensorBoard, SensorForm, read_value


@pytest.mark.parametrize(
    ("payload", "pointer", "expected"),
    [
        (b"62", None, ("62", "")),
        (b" 62.50\n", None, ("62.50", "")),
        (b"open", None, ("open", "")),
        ("zu heiß".encode(), None, ("zu heiß", "")),
        ('{"value": 62.0, "unit": "°C"}'.encode(), None, ("62.0", "°C")),
        (b'{"value": true}', None, ("true", "")),
        (b'{"t": {"now": [1, 2.50]}}', "/t/now/1", ("2.50", "")),
        (b'{"a/b": "x"}', "/a~1b", ("x", "")),
        (b"7", "", ("7", "")),
    ],
)
def test_read_value_keeps_what_the_sensor_wrote(payload, pointer, expected):
    assert read_value(payload, pointer) == expected


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (b"", None),
        (b"\xff", None),
        (b"two\nlines", None),
        (b"x" * 65, None),
        (b"x" * 70_000, None),
        (b'{"value": null}', None),
        (b'{"value": [1]}', None),
        (b'{"value": NaN}', None),
        (b'{"value": 1, "unit": []}', None),
        (b'{"temperature": 1}', None),
        (b'{"temperature": 1}', "/humidity"),
        (b"[1]", "/1"),
        (b"[" * 100_000, "/0"),
        (b"not json", "/a"),
    ],
)
def test_read_value_refuses_what_is_no_short_line(payload, pointer):
    with pytest.raises(ValueError):
        read_value(payload, pointer)


@given(st.binary(max_size=100), st.none() | st.sampled_from(["", "/a", "/0", "/a/b"]))
def test_read_value_gives_one_printable_line_or_a_value_error_whatever_the_bytes(payload, pointer):
    try:
        value, unit = read_value(payload, pointer)
    except ValueError:
        return
    assert 0 < len(value) <= 64
    assert value.isprintable()
    assert unit == "" or unit.isprintable()


@given(st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False))
def test_read_value_finds_numbers_inside_json(number):
    value, _ = read_value(json.dumps({"data": [number]}).encode(), "/data/0")
    assert float(value) == float(number)


def test_reading_has_the_configured_unit_and_its_age():
    board = SensorBoard({"temperature": SensorForm(unit="°C")}, Drops(), max_sensors=1)
    board.put("temperature", b"62")
    reading = board.reading("temperature")
    assert reading is not None
    assert (reading.value, reading.unit, reading.age_s, reading.stale) == ("62", "°C", 0, False)


def test_reading_is_stale_when_it_is_old_or_was_retained():
    forms = {"a": SensorForm(stale_after_s=0.01), "b": SensorForm()}
    board = SensorBoard(forms, Drops(), max_sensors=2)
    board.put("a", b"1")
    board.put("b", b"1", retained=True)
    time.sleep(0.02)
    assert [board.reading(name).stale for name in "ab"] == [True, True]


def test_unreadable_and_unknown_readings_are_counted_and_the_last_good_one_stays():
    drops = Drops()
    board = SensorBoard({"a": SensorForm()}, drops, max_sensors=1)
    board.put("a", b"1")
    board.put("a", b"\xff")
    board.put("b", b"1")
    assert drops.snapshot() == {"sensor_unknown": 1, "sensor_unreadable": 1}
    assert board.reading("a").value == "1"
    assert board.reading("b") is None


def test_sensors_are_bounded_when_none_is_configured():
    drops = Drops()
    board = SensorBoard({}, drops, max_sensors=2)
    for name in ("a", "b", "c", "a"):
        board.put(name, b"1")
    assert board.names() == ["a", "b"]
    assert drops.snapshot() == {"sensor_unknown": 1}
