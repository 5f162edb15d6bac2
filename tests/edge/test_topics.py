"""Where messages go, and where answers may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from tinyllava_edge.config import GatewayConfig
from tinyllava_edge.errors import AskError
from tinyllava_edge.topics import Destination, Topics, matches

OPEN = Topics(GatewayConfig(gateway="g"))
MAPPED = Topics(
    GatewayConfig.model_validate(
        {
            "gateway": "g",
            "cameras": {"porch": {}, "any": {"topic": "frigate/+/person/snapshot"}},
            "sensors": {
                "temperature": {"topic": "zigbee/hall", "pointer": "/t"},
                "humidity": {"topic": "zigbee/hall", "pointer": "/h"},
            },
            "limits": {"reply_prefixes": ["replies/"]},
        }
    )
)


@pytest.mark.parametrize(
    ("topics", "topic", "expected"),
    [
        (OPEN, "tinyllava/g/ask", [Destination("ask")]),
        (OPEN, "tinyllava/g/camera/a b/frame", [Destination("frame", "a b")]),
        (OPEN, "tinyllava/g/sensor/t", [Destination("reading", "t")]),
        (OPEN, "tinyllava/g/sensor/", []),
        (OPEN, "tinyllava/g/camera/" + "x" * 65 + "/frame", []),
        (OPEN, "tinyllava/g/camera/\x07/frame", []),
        (OPEN, "tinyllava/other/ask", []),
        (MAPPED, "tinyllava/g/camera/porch/frame", [Destination("frame", "porch")]),
        (MAPPED, "tinyllava/g/camera/other/frame", []),
        (MAPPED, "frigate/yard/person/snapshot", [Destination("frame", "any")]),
        (
            MAPPED,
            "zigbee/hall",
            [Destination("reading", "temperature"), Destination("reading", "humidity")],
        ),
    ],
)
def test_route_finds_every_destination_of_a_topic(topics, topic, expected):
    assert topics.route(topic) == expected


def test_subscriptions_ask_for_qos_1_where_a_loss_would_matter():
    wanted = OPEN.subscriptions()
    assert wanted["tinyllava/g/ask"] == 1
    assert wanted["tinyllava/g/camera/+/frame"] == 0


@pytest.mark.parametrize("wanted", ["replies/me", "tinyllava/g/answer/x", "tinyllava/g/elsewhere"])
def test_reply_topic_is_taken_when_its_prefix_is_allowed(wanted):
    assert MAPPED.reply_topic(wanted, "a") == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "elsewhere/me",
        "replies",
        "replies/+",
        "replies/#",
        "replies/\n",
        "replies/" + "x" * 300,
        "tinyllava/g/ask",
        "tinyllava/g/status",
        "tinyllava/g/health",
        "tinyllava/g/camera/porch/frame",
    ],
)
def test_reply_topic_is_refused_when_it_could_do_harm(wanted):
    with pytest.raises(AskError) as caught:
        MAPPED.reply_topic(wanted, "a")
    assert caught.value.code == "reply_to_not_allowed"


def test_reply_topic_is_the_answer_topic_when_none_is_wanted():
    assert MAPPED.reply_topic(None, "a-1") == "tinyllava/g/answer/a-1"


LEVELS = st.lists(st.sampled_from(["a", "b", "$x", ""]), min_size=1, max_size=4)


@given(
    st.lists(st.sampled_from(["a", "b", "+", "$x"]), min_size=1, max_size=4), LEVELS, st.booleans()
)
def test_matches_agrees_with_paho_on_every_filter(pattern, levels, with_rest):
    wanted = "/".join([*pattern, "#"] if with_rest else pattern)
    topic = "/".join(levels)
    assert matches(wanted, topic) == topic_matches_sub(wanted, topic)
