"""Arithmetic from logits to probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.engines.scoring import (
    VerdictTokens,
    log_probabilities,
    normalize,
    option_log_probability,
    verdict_probabilities,
    verdict_tokens,
)

logits = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20)


@given(logits)
def test_log_probabilities_sum_to_one_when_logits_are_any(values):
    result = log_probabilities(np.array(values, np.float32))
    assert np.exp(result).sum() == pytest.approx(1)
    # Logits closer than float64 can tell apart share the first place.
    assert result[np.argmax(np.array(values, np.float32))] == result.max()


def test_log_probabilities_stay_finite_when_logits_are_huge():
    assert log_probabilities(np.array([3e38, 3e38], np.float32)) == pytest.approx(
        [-math.log(2)] * 2
    )


def words(vocabulary):
    """A tokenizer that cuts the longest known word first."""

    def tokenize(text):
        tokens = []
        while text:
            word = max((w for w in vocabulary if text.startswith(w)), key=len)
            tokens.append(vocabulary.index(word))
            text = text[len(word) :]
        return tuple(tokens)

    return tokenize


def test_verdict_tokens_hold_all_forms_when_each_is_one_token():
    tokens = verdict_tokens(words([" yes", " Yes", "yes", "Yes", " no", " No", "no", "No"]), " ")
    assert tokens == VerdictTokens((), (0, 1, 2, 3), (4, 5, 6, 7))


def test_verdict_tokens_leave_out_the_space_when_it_begins_both():
    # " Yes" begins with the bare space, which " No" does as well.
    tokens = verdict_tokens(words([" yes", " no", " ", "Yes", "No", "yes", "no"]), " ")
    assert tokens == VerdictTokens((), (0, 3, 5), (1, 4, 6))


def test_verdict_tokens_feed_the_lead_when_both_words_begin_with_it():
    tokens = verdict_tokens(words([" ", "yes", "Yes", "no", "No"]), " ")
    assert tokens == VerdictTokens((0,), (1, 2), (3, 4))


def test_verdict_tokens_take_first_letters_when_words_are_spelled():
    tokens = verdict_tokens(words(list(" yesnoYN")), "")
    assert tokens is not None
    assert (tokens.lead, set(tokens.yes), set(tokens.no)) == ((), {1, 6}, {4, 7})


def test_verdict_tokens_are_none_when_the_words_cannot_be_told_apart():
    assert verdict_tokens(lambda _text: (0,), " ") is None


def test_verdict_probabilities_add_the_forms_up_when_there_are_several():
    row = np.log(np.array([0.1, 0.2, 0.3, 0.25, 0.15], np.float32))
    result = verdict_probabilities(row, VerdictTokens((), (0, 1), (3,)))
    assert result == pytest.approx({"yes": 0.3, "no": 0.25, "unknown": 0.45})


def test_option_log_probability_is_the_product_when_followed_by_any_end():
    rows = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], np.float32))
    # Token 1 first, then an end, which tokens 0 and 2 both are.
    assert option_log_probability(rows, (1,), (0, 2)) == pytest.approx(math.log(0.3 * (0.1 + 0.3)))


@given(logits)
def test_normalize_gives_shares_of_one_when_weights_are_any(weights):
    shares = normalize(weights)
    assert sum(shares) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares)
