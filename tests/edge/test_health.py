"""The numbers of the health message."""

import json

import psutil
import pytest

from tinyllava_edge.health import Latencies, health_payload, temperatures_c


def test_quantiles_are_none_before_the_first_answer_and_the_nearest_rank_afterwards():
    latencies = Latencies()
    assert latencies.quantiles() == {"p50": None, "p95": None}
    for number in range(101):
        latencies.add(float(number))
    assert latencies.quantiles() == {"p50": 50.0, "p95": 95.0}


def test_latencies_forget_the_oldest_beyond_their_bound():
    latencies = Latencies()
    latencies.add(1e9)
    for _ in range(512):
        latencies.add(1.0)
    assert latencies.quantiles() == {"p50": 1.0, "p95": 1.0}


def test_temperatures_are_empty_when_the_board_cannot_be_read(monkeypatch):
    def fail():
        raise OSError("asleep")

    monkeypatch.setattr(psutil, "sensors_temperatures", fail, raising=False)
    assert temperatures_c() == {}


@pytest.mark.parametrize("facts", [{}, {"queue": 3, "model": "größer"}])
def test_health_payload_is_the_facts_and_the_machine(facts):
    health = json.loads(health_payload(facts))
    assert {**facts, **health} == health
    assert health["rss_mib"] > 1
