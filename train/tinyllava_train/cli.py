"""The command ``tinyllava-train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from tinyllava_edge.errors import BackendMissing, TinyLlavaError


class _OneLineErrors(TyperGroup):
    """Turns the errors a user can mend into ``error: ...`` on standard error and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed; pip install 'tinyllava-edge[train]'"
            typer.echo(f"error: {BackendMissing(message)}", err=True)
            raise typer.Exit(1) from None
        except (TinyLlavaError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_OneLineErrors,
    help="Train TinyLLaVA models and score them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Make datasets.", no_args_is_help=True)
app.add_typer(data, name="data")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; resumes what it holds.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value: stages.align.steps=100, data.pictures=500."),
    ] = None,
) -> None:
    """Train RECIPE and write OUT/checkpoint; the same command goes on after a stop."""
    from tinyllava_train.recipe import parse_changes, read_recipe
    from tinyllava_train.run import run_recipe

    folder = run_recipe(read_recipe(recipe, parse_changes(changes or [])), out)
    typer.echo(folder)


@app.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    from tinyllava_train.recipe import recipe_names

    for name in recipe_names():
        typer.echo(name)


@app.command(name="eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint or a bundle folder.")],
    bench: Annotated[str, typer.Option(help="Benchmark: panels.")],
    seed: Annotated[int, typer.Option(min=0, help="Test seed; none was ever trained on.")] = 0,
    questions: Annotated[int, typer.Option(min=1, help="How many questions.")] = 2000,
    answers: Annotated[
        Path | None, typer.Option(help="Write every question with its answer to this JSONL.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Score MODEL by exact match, in all, by kind, and with the picture blanked."""
    if bench != "panels":
        raise typer.BadParameter(f"benchmark {bench!r}: not known; there is panels")
    from tinyllava_train.answerers import open_answerer
    from tinyllava_train.evaluate import evaluate_panels

    score = evaluate_panels(
        open_answerer(model), seed=seed, questions=questions, answers_file=answers
    )
    if as_json:
        typer.echo(json.dumps(score.as_json()))
        return
    table = Table("kind", "exact match", title=f"{questions} questions of seed {seed}")
    for kind, share in score.by_kind.items():
        table.add_row(kind, f"{share:.1%}")
    table.add_section()
    table.add_row("all", f"{score.accuracy:.1%}")
    table.add_row("all, picture blanked", f"{score.blind_accuracy:.1%}")
    Console().print(table)


@data.command()
def panels(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    pictures: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 1000,
    questions: Annotated[int, typer.Option(min=1, help="Questions on each picture.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="The world; splits never overlap.")] = 0,
) -> None:
    """Draw instrument panels with questions, in the LLaVA JSON format."""
    from tinyllava_train.panels.dataset import SPLITS, write_panels

    if split not in SPLITS:
        raise typer.BadParameter(f"split {split!r}: not known; there are {', '.join(SPLITS)}")
    typer.echo(write_panels(out, split, pictures=pictures, questions=questions, seed=seed))


@data.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write pictures/ and questions.json to.")],
    pictures: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Test seed.")] = 7,
) -> None:
    """Draw the demo's pictures and questions, from test seeds."""
    from tinyllava_train.panels.demo import write_demo

    typer.echo(write_demo(out, pictures=pictures, seed=seed))
