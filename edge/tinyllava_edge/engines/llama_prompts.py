"""Questions as tokens, with the room each needs in the context, and which fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyllava_edge.engines.scoring import VerdictTokens, verdict_tokens
from tinyllava_edge.errors import AskError, PromptTooLong
from tinyllava_edge.prompt import question_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tinyllava_edge.engines.contract import Question
    from tinyllava_edge.semantics import Semantics


@dataclass(frozen=True)
class Prompt:
    """A question after the picture, as tokens.

    ``room`` is how many tokens beyond ``tokens`` the answer may need. ``options`` holds the
    tokens of each choice; ``verdict`` is set for yes_no.
    """

    question: Question
    tokens: tuple[int, ...]
    room: int
    options: tuple[tuple[int, ...], ...] = ()
    verdict: VerdictTokens | None = None

    @property
    def cells(self) -> int:
        """Tokens of context that the question and its answer take."""
        return len(self.tokens) + self.room


class Prompts:
    """Builds prompts for one bundle; ``prefix_tokens`` counts all up to the end of the picture."""

    def __init__(
        self,
        tokenize: Callable[[str], tuple[int, ...]],
        semantics: Semantics,
        *,
        prefix_tokens: int,
        context_tokens: int,
    ) -> None:
        self._tokenize = tokenize
        self._semantics = semantics
        self._verdict = verdict_tokens(tokenize, semantics.prompt.answer_lead)
        self._context_tokens = context_tokens
        self.prefix_tokens = prefix_tokens

    def build(self, question: Question) -> Prompt:
        """Tokenize a question. Raises ``AskError`` or, before any decoding, ``PromptTooLong``."""
        text = question_text(question.text, question.readings, self._semantics)
        prompt = self._of_kind(question, self._tokenize(text))
        if not prompt.tokens:
            raise AskError("bad_request", "the question is empty; send some text")
        total = self.prefix_tokens + prompt.cells
        if total > self._context_tokens:
            raise PromptTooLong(
                f"picture, question and answer need {self.prefix_tokens} + {len(prompt.tokens)} + "
                f"{prompt.room} = {total} tokens, the context holds {self._context_tokens}; "
                "shorten the question or lower max_tokens"
            )
        return prompt

    def _of_kind(self, question: Question, tokens: tuple[int, ...]) -> Prompt:
        if question.kind == "yes_no":
            if self._verdict is None:
                raise AskError(
                    "unsupported",
                    "this model's tokenizer cannot tell yes from no by their first tokens; "
                    'ask with kind "choice" instead',
                )
            return Prompt(question, tokens + self._verdict.lead, 0, verdict=self._verdict)
        if question.kind == "choice":
            options = self._options(question)
            return Prompt(question, tokens, max(map(len, options)), options=options)
        if question.max_tokens < 1:
            raise AskError("bad_request", f"max_tokens is {question.max_tokens}; give at least 1")
        return Prompt(question, tokens, question.max_tokens)

    def _options(self, question: Question) -> tuple[tuple[int, ...], ...]:
        choices = question.choices
        if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
            raise AskError(
                "bad_request",
                f"choices are {list(choices)!r:.200}; give at least two, all different",
            )
        lead = self._semantics.prompt.answer_lead
        return tuple(self._tokenize(lead + choice) for choice in choices)


def groups(prompts: Sequence[Prompt], *, free_cells: int, parallel: int) -> Iterator[list[Prompt]]:
    """Cut prompts, in order, into groups that fit the context together, ``parallel`` at most."""
    group: list[Prompt] = []
    taken = 0
    for prompt in prompts:
        if group and (len(group) == parallel or taken + prompt.cells > free_cells):
            yield group
            group, taken = [], 0
        group.append(prompt)
        taken += prompt.cells
    if group:
        yield group
