"""From logits to answers and probabilities: pure arithmetic, float64 throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tinyllava_edge.engines.contract import Verdict


@dataclass(frozen=True)
class VerdictTokens:
    """Which next tokens mean yes and which mean no, once ``lead`` has been fed after the prompt.

    ``lead`` is empty unless the tokenizer begins "yes" and "no" with the same token.
    """

    lead: tuple[int, ...]
    yes: tuple[int, ...]
    no: tuple[int, ...]


def log_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-softmax over the last axis."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    normalized: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def verdict_tokens(
    tokenize: Callable[[str], tuple[int, ...]], answer_lead: str
) -> VerdictTokens | None:
    """Find the first tokens that tell yes from no, whatever their case and leading space.

    Forms whose first token could begin the other word as well are left out. None where a
    tokenizer makes the two words indistinguishable at their first difference.
    """
    lead = _common_prefix(tokenize(answer_lead + "yes"), tokenize(answer_lead + "no"))
    yes = _next_tokens(tokenize, ("yes", "Yes"), answer_lead, lead)
    no = _next_tokens(tokenize, ("no", "No"), answer_lead, lead)
    if not yes - no or not no - yes:
        return None
    return VerdictTokens(lead, tuple(sorted(yes - no)), tuple(sorted(no - yes)))


def _next_tokens(
    tokenize: Callable[[str], tuple[int, ...]],
    words: Sequence[str],
    answer_lead: str,
    lead: tuple[int, ...],
) -> set[int]:
    """The token after ``lead`` in each form of the words that starts with ``lead``."""
    found = set()
    for word in words:
        for space in (answer_lead, " ", ""):
            tokens = tokenize(space + word)
            if tokens[: len(lead)] == lead and len(tokens) > len(lead):
                found.add(tokens[len(lead)])
    return found


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    common = []
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        common.append(one)
    return tuple(common)


def verdict_probabilities(
    logits: NDArray[np.floating], tokens: VerdictTokens
) -> dict[Verdict, float]:
    """Summed probabilities of yes, no and, as ``unknown``, of everything else. ``[vocab]``."""
    probabilities = np.exp(log_probabilities(logits))
    yes = float(probabilities[list(tokens.yes)].sum())
    no = float(probabilities[list(tokens.no)].sum())
    return {"yes": yes, "no": no, "unknown": max(0.0, 1.0 - yes - no)}


def option_log_probability(
    logits: NDArray[np.floating], tokens: Sequence[int], eos_token_ids: Sequence[int]
) -> float:
    """Log-probability of an option's tokens and then of an end.

    ``logits`` ``[len(tokens) + 1, vocab]``: row i predicts token i, the last one the end.
    """
    rows = log_probabilities(logits)
    chosen = rows[np.arange(len(tokens)), list(tokens)].sum()
    return float(chosen + np.logaddexp.reduce(rows[len(tokens), list(eos_token_ids)]))


def normalize(log_weights: Sequence[float]) -> list[float]:
    """Softmax: turn the options' log-probabilities into shares of 1."""
    return [float(share) for share in np.exp(log_probabilities(np.asarray(log_weights)))]
