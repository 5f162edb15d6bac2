"""Prompt templates of the official codes, as the pieces of text around a picture.

A template is an argument of training that no checkpoint stores, so which one applies is a choice,
made by format and written into the notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import PromptSemantics
from tinyllava_export.checkpoints.json_file import read_optional_json
from tinyllava_export.checkpoints.tokenizer import TokenizerFacts
from tinyllava_export.errors import CheckpointError

GENERATION_FILE = "generation_config.json"


@dataclass(frozen=True)
class Template:
    """``before_image IMAGE after_image question tail``, and why it is taken to be this one."""

    before_image: str
    after_image: str
    tail: str
    reason: str


VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FACTORY = Template(
    before_image=f"{VICUNA_SYSTEM} USER: ",
    after_image="\n",
    tail=" ASSISTANT:",
    reason="not stored; TinyLLaVA_Factory's phi, llama, gemma and qwen2 templates differ in the "
    "end token only",
)
LEGACY = Template(
    before_image=f"{VICUNA_SYSTEM} USER: ",
    after_image="\n",
    tail=" ASSISTANT:",
    reason="not stored; TinyLLaVABench evaluates 3.1B and 2.0B with 'phi' and 1.5B with 'v1', "
    "which differ in the end token only",
)
LLAVA = Template(
    before_image="USER: ",
    after_image="\n",
    tail="\nASSISTANT:",
    reason="not stored; the cards of TinyLLaVA models in transformers' format ask with this one",
)


def prompt_semantics(
    template: Template,
    tokenizer: TokenizerFacts,
    *,
    end_tokens: tuple[int, ...],
    notes: dict[str, str],
    whole_text: bool = False,
) -> PromptSemantics:
    """The template with the tokenizer's ids; reasons go into ``notes``.

    ``whole_text`` tells an official code that encodes the prompt in one piece, the picture's
    token among the others; the rest encode what stands before and after it separately.
    """
    before_image, after_image = template.before_image, template.after_image
    if tokenizer.spaces_first:
        before_image = " " + before_image
        after_image = after_image if whole_text else " " + after_image
        notes["prompt.before_image"] = "with the space that the tokenizer puts before a text"
    notes["prompt"] = template.reason
    answer_lead = " "
    if tokenizer.adds_space:
        answer_lead = ""
        notes["prompt.answer_lead"] = "empty: the tokenizer starts each piece with its own space"
    return PromptSemantics(
        before_image=before_image,
        after_image=after_image,
        tail=template.tail,
        answer_lead=answer_lead,
        unicode_form=tokenizer.unicode_form,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_ids=end_tokens,
    )


def end_token_ids(
    folder: Path, text_config: dict[str, Any], tokenizer: TokenizerFacts
) -> tuple[int, ...]:
    """The ids that end an answer: the tokenizer's, then those of ``generation_config.json``.

    Raises ``CheckpointError`` where neither they nor the model's settings name one.
    """
    generation = read_optional_json(folder / GENERATION_FILE).get("eos_token_id")
    found = _ids(tokenizer.eos_token_id) + _ids(generation)
    found = found or _ids(text_config.get("eos_token_id"))
    if not found:
        raise CheckpointError(
            f"{folder}: no end-of-sequence token is named; add eos_token to tokenizer_config.json"
        )
    return tuple(dict.fromkeys(found))


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int) and not isinstance(item, bool)]
