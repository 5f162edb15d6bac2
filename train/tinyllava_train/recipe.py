"""Recipes: TOML files that say which model is built, from which data, in which stages."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tinyllava_train.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataPart(_Part):
    """How many panels are drawn. ``seed`` is the world; splits are disjoint whatever it is."""

    seed: int = Field(ge=0, lt=100)
    pictures: int = Field(gt=0)
    pictures_gpu: int = Field(gt=0)
    validation_pictures: int = Field(gt=0)
    questions: int = Field(gt=0)


class ModelPart(_Part):
    """The three parts, by their transformers configurations, and what the semantics need."""

    name: str
    system: str
    vocabulary: int = Field(gt=300)
    aspect: Literal["pad", "squash", "crop"]
    feature_layer: int
    keeps_all_tokens: bool
    image_tokens: int = Field(gt=0)
    vision_tower: dict[str, Any]
    language_model: dict[str, Any]


class QuestionWeight(_Part):
    """Makes some questions of a stage ``weight`` times as likely to be asked.

    Which: those of ``kind`` (or of any) that hold the regular expression ``pattern`` (see
    ``choice.turn_weight``). Where ``until`` is given, the rule fades to no effect by that share of
    the stage's steps. Rules multiply.
    """

    weight: float = Field(gt=0)
    kind: str | None = None
    pattern: str = ""
    until: float | None = Field(None, gt=0, le=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern


class Stage(_Part):
    """One stage: what it minimizes, what it trains, for how long.

    ``matrix_learning_rate`` is Muon's, for the matrices inside the layers; ``learning_rate`` is
    AdamW's, for all else. ``turns`` is how many questions of a picture share a sequence.
    ``weights`` makes some questions oftener or rarer, for a part of the stage or all of it.
    ``steps_gpu`` is used where there is a GPU.
    """

    name: str
    objective: Literal["match", "text", "caption", "conversation"]
    trains: tuple[Literal["vision_tower", "connector", "language_model"], ...]
    steps: int = Field(gt=0)
    steps_gpu: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    matrix_learning_rate: float = Field(gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    turns: int = Field(12, gt=0)
    weights: tuple[QuestionWeight, ...] = ()


class Recipe(_Part):
    """A whole recipe."""

    seed: int
    data: DataPart
    model: ModelPart
    stages: tuple[Stage, ...] = Field(min_length=1)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("tinyllava_train") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def read_recipe(name: str, changes: dict[str, str] | None = None) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path, with ``key.sub=value`` changes."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file")
        text = path.read_text(encoding="utf-8")
    elif name in recipe_names():
        text = (resources.files("tinyllava_train") / "recipes" / f"{name}.toml").read_text("utf-8")
    else:
        raise RecipeError(f"recipe {name!r}: not known; there are {', '.join(recipe_names())}")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name}: {error}") from None
    for key, value in (changes or {}).items():
        _change(table, key, value)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"recipe {name}: {where}: {first['msg']}") from None


def _change(table: dict[str, Any], key: str, value: str) -> None:
    """Set ``stages.align.steps=10``: stages go by their names; values are read as TOML."""
    here: Any = table
    *path, last = key.split(".")
    for part in path:
        if isinstance(here, list):
            here = next((item for item in here if item.get("name") == part), None)
        else:
            here = here.get(part) if isinstance(here, dict) else None
        if here is None:
            raise RecipeError(f"--set {key}: the recipe has no {part!r}")
    if not isinstance(here, dict) or last not in here:
        raise RecipeError(f"--set {key}: the recipe has no {last!r}")
    try:
        here[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        here[last] = value


def parse_changes(pairs: list[str]) -> dict[str, str]:
    """``["a.b=1"]`` to ``{"a.b": "1"}``. Raises ``RecipeError`` where there is no ``=``."""
    changes: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {pair}: write key.sub=value")
        changes[key] = value
    return changes
