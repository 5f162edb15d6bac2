"""llama.cpp's messages as log records."""

from __future__ import annotations

import logging

from tinyllava_edge.engines.llama_log import _Lines


def test_lines_are_joined_when_a_message_comes_in_pieces(caplog):
    lines = _Lines()
    with caplog.at_level(logging.DEBUG, logger="tinyllava_edge.llama_cpp"):
        lines.feed(2, "loading ")
        lines.feed(5, "...")
        lines.feed(5, " done\n\nnext\n")
    assert [r.getMessage() for r in caplog.records] == ["loading ... done", "next"]
    assert {r.levelno for r in caplog.records} == {logging.DEBUG}


def test_last_error_is_kept_when_information_follows(caplog):
    lines = _Lines()
    lines.feed(4, "no such tensor\n")
    lines.feed(2, "giving up\n")
    assert lines.last_error == "no such tensor"
    assert [r.levelno for r in caplog.records if r.levelno >= logging.WARNING] == [logging.ERROR]
