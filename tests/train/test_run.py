import json

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from tinyllava_edge.semantics import read_semantics
from tinyllava_train.errors import RecipeError
from tinyllava_train.initialize import initialize_tower
from tinyllava_train.journal import Journal, read_journal
from tinyllava_train.loop import trainable
from tinyllava_train.model import model_semantics
from tinyllava_train.run import run_recipe


def weights(out):
    model = LlavaForConditionalGeneration.from_pretrained(out / "checkpoint")
    return model.state_dict()


def test_checkpoint_is_read_by_transformers_alone_when_finished(finished_run, tiny_recipe):
    folder = finished_run / "checkpoint"
    assert weights(finished_run)
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<image>") == 4
    assert read_semantics(folder) == model_semantics(tiny_recipe.model)


def test_card_says_what_the_model_knows_when_finished(finished_run):
    card = (finished_run / "checkpoint" / "README.md").read_text(encoding="utf-8")
    assert "knows nothing else" in card
    assert "instrument panels" in card


def test_calibration_travels_with_the_checkpoint_when_finished(finished_run):
    folder = finished_run / "checkpoint" / "calibration"
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    assert rows
    assert all((folder / row["picture"]).is_file() for row in rows)


def test_log_and_plot_are_there_when_finished(finished_run, tiny_recipe):
    rows = read_journal(finished_run)
    assert [row["stage"] for row in rows] == [stage.name for stage in tiny_recipe.stages]
    assert "validation_loss" in rows[-1]
    with Image.open(finished_run / "loss.png") as plot:
        assert plot.width > 800


def test_weights_are_the_same_when_a_run_is_killed_and_resumed(
    finished_run, tiny_recipe, tmp_path, monkeypatch
):
    import tinyllava_train.loop as loop

    class Killed(Exception):
        pass

    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    step_of = loop._train_step

    def dies_in_the_last_stage(run, objective, optimizer, step):
        if run.stage.name == "finetune" and step == 2:
            raise Killed
        return step_of(run, objective, optimizer, step)

    monkeypatch.setattr(loop, "_train_step", dies_in_the_last_stage)
    with pytest.raises(Killed):
        run_recipe(tiny_recipe, tmp_path)
    assert not (tmp_path / "checkpoint").exists()
    monkeypatch.setattr(loop, "_train_step", step_of)
    run_recipe(tiny_recipe, tmp_path)
    whole, resumed = weights(finished_run), weights(tmp_path)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, resumed[name], atol=1e-5), name


def test_run_is_refused_when_the_folder_holds_another_recipes(finished_run, tiny_recipe):
    other = tiny_recipe.model_copy(update={"seed": 99})
    with pytest.raises(RecipeError, match="another recipe"):
        run_recipe(other, finished_run)


def test_only_the_stages_parts_learn_when_frozen(tiny_recipe, tiny_model):
    align = next(stage for stage in tiny_recipe.stages if stage.name == "align")
    names = [name for name, _ in trainable(tiny_model, align)]
    assert all(name.startswith("connector.") for name in names)
    learning = {n for n, p in tiny_model.named_parameters() if p.requires_grad}
    assert learning == {n for n in learning if "multi_modal_projector" in n}
    assert len(learning) == len(names) == 4


def test_patch_features_have_unit_variance_when_whitened(dataset, tiny_model):
    tower = tiny_model.model.vision_tower
    pictures = dataset.pixels(list(range(12)), None)
    initialize_tower(tower, pictures)
    features = tower.vision_model.embeddings.patch_embedding(pictures).flatten(2)
    variances = features.transpose(0, 1).flatten(1).var(1)
    assert variances.max() < 1.01
    assert variances[-8:].min() > 0.5


def test_rows_beyond_the_resumed_step_are_dropped_when_the_journal_opens(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.write(stage="a", stage_number=0, step=step, loss=1.0)
    Journal(tmp_path, stage=0, step=2)
    assert [row["step"] for row in read_journal(tmp_path)] == [1, 2]
