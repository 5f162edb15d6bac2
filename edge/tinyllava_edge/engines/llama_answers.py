"""A group of prompts decoded together: one batch for the questions, one a step for the answers."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from math import exp
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from tinyllava_edge.engines.contract import Reply
from tinyllava_edge.engines.llama_runtime import Step
from tinyllava_edge.engines.scoring import (
    log_probabilities,
    normalize,
    option_log_probability,
    verdict_probabilities,
)
from tinyllava_edge.engines.stopwatch import since_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tinyllava_edge.engines.llama_prompts import Prompt
    from tinyllava_edge.engines.llama_runtime import LlamaRuntime
    from tinyllava_edge.engines.scoring import VerdictTokens
    from tinyllava_edge.engines.stopwatch import Stopwatch
    from tinyllava_edge.semantics import PromptSemantics

PREFIX = 0
"""The sequence that holds the prompt up to the end of the picture."""


@dataclass(eq=False)
class _Draft:
    """An answer in the making: ``logits`` ``[vocab]`` predict the token at ``position``."""

    prompt: Prompt
    sequence: int
    position: int
    logits: NDArray[np.float32]
    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0


class Answering:
    """Answers groups of at most ``parallel`` prompts that start from the prefix in sequence 0.

    Question i of a group uses sequence i + 1, the options of multiple-choice questions the
    ``parallel`` sequences from ``parallel + 1`` on. All are forgotten afterwards, come what may.
    """

    def __init__(
        self, llama: LlamaRuntime, prompt: PromptSemantics, *, prefix_tokens: int, parallel: int
    ) -> None:
        self._llama = llama
        self._eos = sorted(set(prompt.eos_token_ids))
        self._lead = prompt.answer_lead
        self._prefix_tokens = prefix_tokens
        self._parallel = parallel

    def answer(self, group: Sequence[Prompt], watch: Stopwatch) -> list[Reply]:
        """Answer prompts that fit the context together; replies are in their order."""
        free_cells = self._llama.cells - self._prefix_tokens
        spare_cells = free_cells - sum(prompt.cells for prompt in group)
        replies: dict[int, Reply] = {}
        try:
            started = perf_counter()
            drafts = self._read(group)
            watch.prompt_ms = since_ms(started)
            watch.start_decoding()
            for draft in self._write([d for d in drafts if d.prompt.question.kind == "text"]):
                replies[draft.sequence] = self._text_reply(draft, watch)
            for draft in drafts:
                if draft.prompt.verdict is not None:
                    reply = self._verdict_reply(draft, draft.prompt.verdict, watch)
                    replies[draft.sequence] = reply
                elif draft.prompt.options:
                    replies[draft.sequence] = self._choice_reply(draft, spare_cells, watch)
        finally:
            for sequence in range(1, len(group) + 1):
                self._llama.forget(sequence)
        return [replies[draft.sequence] for draft in drafts]

    def prompt_logits(self, prompt: Prompt) -> NDArray[np.float32]:
        """Logits ``[vocab]`` of the token that would follow a prompt."""
        try:
            (draft,) = self._read([prompt])
        finally:
            self._llama.forget(1)
        return draft.logits

    def _read(self, group: Sequence[Prompt]) -> list[_Draft]:
        """Feed all questions in one go, each on its own copy of the prefix."""
        steps = []
        for sequence, prompt in enumerate(group, start=1):
            self._llama.share(PREFIX, sequence)
            last = len(prompt.tokens) - 1
            steps += [
                Step(token, self._prefix_tokens + i, sequence, wanted=i == last)
                for i, token in enumerate(prompt.tokens)
            ]
        rows = self._llama.decode(steps)
        return [
            _Draft(prompt, i + 1, self._prefix_tokens + len(prompt.tokens), rows[i])
            for i, prompt in enumerate(group)
        ]

    def _write(self, drafts: list[_Draft]) -> Iterator[_Draft]:
        """Greedy text, a token of every unfinished answer a step; yields answers as they end."""
        while drafts:
            ended = [draft for draft in drafts if not self._take_best(draft)]
            yield from ended
            drafts = [draft for draft in drafts if draft not in ended]
            steps = [Step(d.tokens[-1], d.position - 1, d.sequence, wanted=True) for d in drafts]
            for draft, row in zip(drafts, self._llama.decode(steps), strict=True):
                draft.logits = row

    def _take_best(self, draft: _Draft) -> bool:
        """Append the likeliest token; False where the answer has ended or is full."""
        token = int(draft.logits.argmax())
        draft.log_probability += float(log_probabilities(draft.logits)[token])
        if token in self._eos:
            return False
        draft.tokens.append(token)
        draft.position += 1
        return len(draft.tokens) < draft.prompt.question.max_tokens

    def _option_scores(self, draft: _Draft, spare_cells: int) -> list[float]:
        """Log-probability of every option, decoded together as far as they fit."""
        room = draft.prompt.room + spare_cells
        scores: list[float] = []
        chunk: list[tuple[int, ...]] = []
        for option in draft.prompt.options:
            full = len(chunk) == self._parallel or sum(map(len, chunk)) + len(option) > room
            if chunk and full:
                scores += self._score_together(draft, chunk)
                chunk = []
            chunk.append(option)
        return scores + self._score_together(draft, chunk)

    def _score_together(self, draft: _Draft, options: Sequence[tuple[int, ...]]) -> list[float]:
        first = self._parallel + 1
        sequences = range(first, first + len(options))
        steps = [
            Step(token, draft.position + i, sequence, wanted=True)
            for sequence, option in zip(sequences, options, strict=True)
            for i, token in enumerate(option)
        ]
        try:
            for sequence in sequences:
                self._llama.share(draft.sequence, sequence)
            rows = iter(self._llama.decode(steps))
        finally:
            for sequence in sequences:
                self._llama.forget(sequence)
        return [
            option_log_probability(
                np.stack([draft.logits, *(next(rows) for _ in option)]), option, self._eos
            )
            for option in options
        ]

    def _text_reply(self, draft: _Draft, watch: Stopwatch) -> Reply:
        return Reply(
            text=_readable(self._llama.text(draft.tokens), self._lead),
            token_ids=tuple(draft.tokens),
            confidence=exp(draft.log_probability),
            prompt_tokens=self._prefix_tokens + len(draft.prompt.tokens),
            timings_ms=watch.timings_ms(),
        )

    def _verdict_reply(self, draft: _Draft, tokens: VerdictTokens, watch: Stopwatch) -> Reply:
        probabilities = verdict_probabilities(draft.logits, tokens)
        verdict = max(probabilities, key=probabilities.__getitem__)
        forms = {"yes": tokens.yes, "no": tokens.no, "unknown": ()}[verdict]
        likeliest = max(forms, key=lambda token: float(draft.logits[token]), default=None)
        return Reply(
            text=verdict,
            token_ids=() if likeliest is None else (*tokens.lead, likeliest),
            confidence=probabilities[verdict],
            prompt_tokens=self._prefix_tokens + len(draft.prompt.tokens),
            verdict=verdict,
            probabilities={str(name): share for name, share in probabilities.items()},
            timings_ms=watch.timings_ms(),
        )

    def _choice_reply(self, draft: _Draft, spare_cells: int, watch: Stopwatch) -> Reply:
        shares = normalize(self._option_scores(draft, spare_cells))
        best = max(range(len(shares)), key=shares.__getitem__)
        choices = draft.prompt.question.choices
        return Reply(
            text=choices[best],
            token_ids=draft.prompt.options[best],
            confidence=shares[best],
            prompt_tokens=self._prefix_tokens + len(draft.prompt.tokens),
            probabilities=dict(zip(choices, shares, strict=True)),
            timings_ms=watch.timings_ms(),
        )


def _readable(data: bytes, lead: str) -> str:
    """Text of an answer; a letter that was cut at its end is left out, a damaged one replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(data, final=False).removeprefix(lead).strip()
