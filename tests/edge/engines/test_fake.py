"""The scripted engine keeps the contract that the real one keeps."""

from __future__ import annotations

import pytest

from tinyllava_edge.engines.contract import Question, Sight
from tinyllava_edge.engines.fake import FakeEngine
from tinyllava_edge.errors import AskError


def test_fake_answers_from_its_script_when_asked(gradient):
    engine = FakeEngine({"open?": "yes", "which?": "red"}, default="so")
    sight = engine.see(gradient(8, 8), "a")
    engine.see(gradient(8, 8), "a")
    replies = engine.ask(
        sight,
        [
            Question("open?", kind="yes_no"),
            Question("else?", kind="yes_no"),
            Question("which?", kind="choice", choices=("green", "red")),
            Question("what?"),
        ],
    )
    assert [reply.text for reply in replies] == ["yes", "unknown", "red", "so"]
    assert [reply.verdict for reply in replies] == ["yes", "unknown", None, None]
    assert sum(replies[2].probabilities.values()) == pytest.approx(1)
    assert (engine.seen, engine.asked, engine.batches) == (1, 4, 1)
    engine.close()
    assert engine.closed


def test_fake_refuses_when_the_sight_was_never_seen():
    with pytest.raises(AskError, match="never seen"):
        FakeEngine().ask(Sight("b", 1, 0.0), [Question("what?")])
