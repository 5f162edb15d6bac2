"""``tinyllava-edge ask``: questions about one picture, without a broker."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyllava_edge.cli.arguments import parse_sensor, verified_bundle
from tinyllava_edge.engines.choose import EngineOptions, open_engine
from tinyllava_edge.engines.contract import Kind, Question, Reply
from tinyllava_edge.errors import PictureError
from tinyllava_edge.pictures import PictureLimits, decode_picture, picture_key

if TYPE_CHECKING:
    from collections.abc import Sequence


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ask")(ask)


def ask(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, or the word demo.")],
    picture: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP file.")],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...")],
    *,
    kind: Annotated[
        str, typer.Option(help="text, yes_no or choice; applies to every question.")
    ] = "text",
    choices: Annotated[str, typer.Option(help="Options of a choice, between commas.")] = "",
    sensor: Annotated[
        list[str] | None,
        typer.Option(help="A reading as name=value[unit][@seconds]; may be repeated."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0, max=0, help="0 is greedy and repeatable; nothing else yet.")
    ] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    gpu_layers: Annotated[int, typer.Option(help="Layers on the GPU, -1 for all.")] = 0,
    context: Annotated[
        int | None, typer.Option(min=1, help="Context in tokens; default: the bundle's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask questions about a picture."""
    del temperature  # checked by its bounds
    readings = tuple(parse_sensor(text) for text in sensor or ())
    options = tuple(choice.strip() for choice in choices.split(",") if choice.strip())
    asked = [
        Question(text, _kind(kind), _choices(kind, options), readings, max_tokens)
        for text in questions
    ]
    data = _read_picture(picture)
    image = decode_picture(data)
    opened = verified_bundle(bundle)
    settings = EngineOptions(threads=threads, gpu_layers=gpu_layers, context_tokens=context)
    with closing(open_engine(opened, settings)) as engine:
        sight = engine.see(image, picture_key(data))
        replies = engine.ask(sight, asked)
    if as_json:
        typer.echo(_json(replies, sight.image_tokens))
    else:
        _show(asked, replies)


def _kind(word: str) -> Kind:
    kinds: dict[str, Kind] = {"text": "text", "yes_no": "yes_no", "choice": "choice"}
    if word not in kinds:
        raise typer.BadParameter(f"--kind is {word!r}; give text, yes_no or choice")
    return kinds[word]


def _choices(kind: str, options: tuple[str, ...]) -> tuple[str, ...]:
    if (kind == "choice") != bool(options):
        raise typer.BadParameter("--choices and --kind choice go together; give both or neither")
    return options


def _read_picture(path: Path) -> bytes:
    """Read at most one byte more than is allowed, so that an endless file costs nothing."""
    try:
        with path.open("rb") as file:
            return file.read(PictureLimits().max_bytes + 1)
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror}; give a picture file") from None


def _json(replies: Sequence[Reply], image_tokens: int) -> str:
    answers = [_as_object(reply, image_tokens) for reply in replies]
    return json.dumps(answers[0] if len(answers) == 1 else {"answers": answers}, ensure_ascii=False)


def _as_object(reply: Reply, image_tokens: int) -> dict[str, Any]:
    return {
        "text": reply.text,
        "token_ids": list(reply.token_ids),
        "n_image_tokens": image_tokens,
        "prompt_tokens": reply.prompt_tokens,
        "timings_ms": {name: round(ms, 3) for name, ms in reply.timings_ms.items()},
        "verdict": reply.verdict,
        "confidence": reply.confidence,
    }


def _show(asked: Sequence[Question], replies: Sequence[Reply]) -> None:
    for question, reply in zip(asked, replies, strict=True):
        if len(asked) > 1:
            typer.echo(f"{question.text}")
        typer.echo(f"{reply.text}  ({reply.confidence:.0%}, {reply.timings_ms['total']:.0f} ms)")
