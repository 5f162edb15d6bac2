"""The configuration file: what it means, and that every mistake is found at its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.config import GatewayConfig, load_config, parse_config
from tinyllava_edge.errors import ConfigError

FULL = b"""\
gateway: hall
bundle: models/panels
mqtt:
  host: broker.local
  port: 8883
  protocol: 3.1.1
  tls: {}
cameras:
  porch:
  drive:
    topic: frigate/drive/person/snapshot
sensors:
  temperature: {unit: "\xc2\xb0C", pointer: /temperature, topic: zigbee2mqtt/hall}
limits:
  queue: 5
"""


def test_config_has_a_base_topic_and_a_broker_when_the_file_is_empty():
    config = parse_config(b"", "empty.yaml")
    assert config.base == "tinyllava/gateway"
    assert (config.mqtt.host, config.mqtt.port) == ("localhost", 1883)
    assert config.bundle == "demo"


def test_config_takes_relative_bundles_from_its_own_folder(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_bytes(FULL)
    config = load_config(file)
    assert config.bundle == str(tmp_path / "models/panels")
    assert config.cameras["porch"].topic is None
    assert config.cameras["drive"].topic == "frigate/drive/person/snapshot"
    assert config.sensors["temperature"].pointer == "/temperature"
    assert config.limits.queue == 5
    assert config.mqtt.tls is not None


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("gatway: hall\n", "f:1:1: gatway", "unknown key"),
        ("gateway: hall\nmqtt:\n  port: 99999\n", "f:3:3: mqtt.port", "65535"),
        ("mqtt:\n  hosst: a\n", "f:2:3: mqtt.hosst", "unknown key"),
        ("limits:\n  queue: many\n", "f:2:3: limits.queue", "'many'"),
        ("cameras:\n  a b: {}\n", "f:2:3: cameras.a b", "pattern"),
        ("cameras:\n  porch: {topic: 'a/#/b'}\n", "f:2:11: cameras.porch.topic", "last one"),
        ("cameras:\n  porch: {topic: 'a/b+'}\n", "f:2:11: cameras.porch.topic", "whole level"),
        ("base_topic: a/+/b\n", "f:1:1: base_topic", "wildcards"),
        ("gateway: a\ngateway: b\n", "f:2:1", "twice"),
        ("mqtt:\n  password_env: SECRET\n", "f:1:1", "username"),
        ("gateway: [\n", "f:2:1", "expected"),
        ("- a\n", "f:1:1", "dictionary"),
        ("\x00", "f", "no YAML"),
    ],
)
def test_config_names_line_column_and_field_when_wrong(text, where, what):
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), "f")
    assert str(caught.value).startswith(where)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_config_is_refused_in_one_line_when_the_file_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


@given(st.binary(max_size=80) | st.text(alphabet="ab:- \n[]{}&*!|>\"'#", max_size=60))
def test_parse_config_gives_a_config_or_a_config_error_whatever_the_text(text):
    data = text.encode() if isinstance(text, str) else text
    try:
        assert isinstance(parse_config(data, "f"), GatewayConfig)
    except ConfigError as error:
        assert "\n" not in str(error)
