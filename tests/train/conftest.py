"""A world small enough to train on within a test."""

from pathlib import Path

import pytest

from tinyllava_train.conversations import Encoder, Sample, prompt_texts, read_samples
from tinyllava_train.feed import Dataset
from tinyllava_train.model import build_model, model_semantics
from tinyllava_train.panels.dataset import write_panels
from tinyllava_train.recipe import Recipe, read_recipe
from tinyllava_train.run import run_recipe
from tinyllava_train.tokenizer import train_tokenizer

TINY = {
    "data.pictures": "12",
    "data.validation_pictures": "6",
    "data.questions": "4",
    "model.vision_tower.hidden_size": "48",
    "model.vision_tower.intermediate_size": "64",
    "model.vision_tower.num_hidden_layers": "2",
    "model.language_model.hidden_size": "64",
    "model.language_model.intermediate_size": "64",
    "model.language_model.num_hidden_layers": "2",
    **{
        f"stages.{stage}.{key}": value
        for stage in (
            "tower",
            "language",
            "align",
            "describe",
            "finetune",
            "practice",
            "colours",
            "all_colours",
        )
        for key, value in (("steps", "4"), ("batch", "4"))
    },
}


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return read_recipe("panels", TINY)


@pytest.fixture(scope="session")
def panels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("panels")
    return write_panels(folder, "train", pictures=12, questions=4, seed=3)


@pytest.fixture(scope="session")
def dataset(panels, tiny_recipe, tmp_path_factory) -> Dataset:
    samples = read_samples(panels, panels.parent / "train")
    semantics = model_semantics(tiny_recipe.model)
    tokenizer = train_tokenizer(prompt_texts(samples, semantics), vocabulary=400)
    return Dataset(samples, Encoder(tokenizer, semantics), tmp_path_factory.mktemp("px") / "a.npy")


@pytest.fixture(scope="session")
def dataset_of_many_questions(tmp_path_factory) -> list[Sample]:
    """Panels with every question that can be asked on them."""
    folder = tmp_path_factory.mktemp("questions")
    listing = write_panels(folder, "train", pictures=60, questions=48, seed=3)
    return read_samples(listing, folder / "train")


@pytest.fixture
def tiny_model(tiny_recipe, dataset):
    return build_model(tiny_recipe.model, dataset.encoder.tokenizer)


@pytest.fixture(scope="session")
def finished_run(tiny_recipe, tmp_path_factory) -> Path:
    """A whole run of the tiny recipe; its folder."""
    out = tmp_path_factory.mktemp("run")
    run_recipe(tiny_recipe, out)
    return out
