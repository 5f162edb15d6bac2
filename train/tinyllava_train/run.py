"""Carry out a recipe: draw the data, train the stages in order, write the checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from tinyllava_edge.semantics import Semantics
from tinyllava_train.card import model_card
from tinyllava_train.checkpoint import save_checkpoint
from tinyllava_train.conversations import Encoder, Sample, prompt_texts, read_samples
from tinyllava_train.errors import RecipeError
from tinyllava_train.feed import Dataset
from tinyllava_train.initialize import initialize_tower
from tinyllava_train.journal import Journal
from tinyllava_train.loop import StageRun, run_stage
from tinyllava_train.model import build_model, model_semantics
from tinyllava_train.panels.dataset import write_panels
from tinyllava_train.plots import plot_losses
from tinyllava_train.recipe import Recipe
from tinyllava_train.state import RunState, load_state, save_state
from tinyllava_train.tokenizer import train_tokenizer

RECIPE_FILE = "recipe.json"


def run_recipe(recipe: Recipe, out: Path) -> Path:
    """Train and return the checkpoint folder, ``out/checkpoint``.

    ``out`` also holds the data, ``log.jsonl``, ``loss.png`` and the state to resume from: the same
    command goes on where it was stopped. Raises ``RecipeError`` where ``out`` holds another
    recipe's run.
    """
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training, validation = _samples(recipe, out / "data", gpu=device.type == "cuda")
    semantics = model_semantics(recipe.model)
    texts = prompt_texts(training, semantics)
    tokenizer = train_tokenizer(texts, vocabulary=recipe.model.vocabulary)
    encoder = Encoder(tokenizer, semantics)
    train = Dataset(training, encoder, out / "data" / f"train-{len(training)}.npy")
    validate = Dataset(validation, encoder, out / "data" / f"validation-{len(validation)}.npy")
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.model, tokenizer)
    initialize_tower(
        model.model.vision_tower, train.pixels(list(range(min(512, len(training)))), None)
    )
    _train(recipe, model.to(device), train, validate, out)
    return _finish(recipe, model, tokenizer, semantics, validation, out)


def _claim(out: Path, recipe: Recipe) -> None:
    file = out / RECIPE_FILE
    text = recipe.model_dump_json(indent=1)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise RecipeError(
            f"{out}: holds a run of another recipe; choose another --out or remove it"
        )
    file.write_text(text, encoding="utf-8")


def _samples(recipe: Recipe, folder: Path, *, gpu: bool) -> tuple[list[Sample], list[Sample]]:
    data = recipe.data
    counts = {
        "train": data.pictures_gpu if gpu else data.pictures,
        "validation": data.validation_pictures,
    }
    listings = {
        split: write_panels(folder, split, pictures=count, questions=data.questions, seed=data.seed)
        for split, count in counts.items()
    }
    training, validation = (read_samples(path, folder / split) for split, path in listings.items())
    return training, validation


def _train(
    recipe: Recipe,
    model: LlavaForConditionalGeneration,
    train: Dataset,
    validation: Dataset,
    out: Path,
) -> None:
    state = load_state(out)
    journal = Journal(out, stage=state.stage if state else 0, step=state.step if state else 0)
    if state is not None:
        model.load_state_dict(state.model)
    for number, stage in enumerate(recipe.stages):
        if state is not None and number < state.stage:
            continue
        steps = stage.steps_gpu if model.device.type == "cuda" else stage.steps
        run = StageRun(stage, number, steps, recipe.seed, model, train, validation, out)
        resumed = state if state is not None and state.stage == number and state.step else None
        run_stage(run, resumed, journal)
        save_state(out, RunState(number + 1, 0, model.state_dict(), {}, []))
        plot_losses(out)


def _finish(
    recipe: Recipe,
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    semantics: Semantics,
    validation: list[Sample],
    out: Path,
) -> Path:
    folder = out / "checkpoint"
    save_checkpoint(
        folder,
        model.cpu().eval(),
        tokenizer,
        semantics,
        card=model_card(recipe, model),
        calibration=validation,
    )
    return folder
