"""The prompt template of a processor, rendered as transformers renders it.

A template is a small program, so it runs in Jinja's sandbox, where it reaches nothing outside.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tinyllava_export.checkpoints.added_tokens import named_tokens
from tinyllava_export.checkpoints.json_file import read_optional_json
from tinyllava_export.checkpoints.prompts import Template
from tinyllava_export.errors import CheckpointError

TEXT_FILE = "chat_template.jinja"
JSON_FILES = ("chat_template.json", "processor_config.json")
IMAGE = "<image>"
QUESTION = "QUESTION-STANDS-HERE"


def processor_template(folder: Path, control_tokens: tuple[str, ...]) -> Template | None:
    """The template of the folder's processor, None where there is none that knows pictures.

    A template without a picture is the language model's own, which LLaVA models are not trained
    with. Raises ``CheckpointError`` for one that a prompt cannot follow: with the picture after
    the question, or with ``control_tokens``, which are never read in text.
    """
    source, file = _read(folder)
    if source is None:
        return None
    rendered = _render(source, folder)
    if rendered is None or IMAGE not in rendered:
        return None
    start = named_tokens(folder).get("bos_token", "")
    before, _, rest = rendered.removeprefix(start).partition(IMAGE)
    after, _, tail = rest.partition(QUESTION)
    if IMAGE in rest or QUESTION in before or QUESTION not in rest:
        raise CheckpointError(
            f"{folder / file}: the template does not put one picture before the question; only "
            f"such prompts can be exported"
        )
    used = next((token for token in control_tokens if token and token in before + rest), None)
    if used is not None:
        raise CheckpointError(
            f"{folder / file}: the template uses the control token {used!r}, which prompts of a "
            f"bundle cannot hold"
        )
    return Template(before, after, tail, f"{file} of the processor")


def _read(folder: Path) -> tuple[str | None, str]:
    path = folder / TEXT_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace"), TEXT_FILE
    for file in JSON_FILES:
        source = read_optional_json(folder / file).get("chat_template")
        if isinstance(source, str):
            return source, file
    return None, ""


def _render(source: str, folder: Path) -> str | None:
    """A question on a picture as text, or None where the template expects something else."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    try:
        return environment.from_string(source).render(
            messages=[{"role": "user", "content": content}],
            add_generation_prompt=True,
            **named_tokens(folder),
        )
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError):
        return None


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
