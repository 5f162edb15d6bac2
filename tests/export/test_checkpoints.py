import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.checkpoints.licence import UNKNOWN, read_licence
from tinyllava_export.checkpoints.shapes import complete_text_config, text_shape
from tinyllava_export.checkpoints.transformers_llava import neutral_name
from tinyllava_export.errors import CheckpointError
from tinyllava_export.modules import require_tensors, used_layers


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def rename_tensors(folder, rename):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {rename(key): tensor for key, tensor in tensors.items()}, folder / "model.safetensors"
    )


def as_transformers_5(key):
    for old, new in (
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.vision_model.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
    ):
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def test_open_checkpoint_gives_shapes_and_meaning(tiny_folder):
    checkpoint = open_checkpoint(tiny_folder)
    text, vision = checkpoint.text, checkpoint.vision
    assert (text.layers, text.hidden, text.heads, text.kv_heads, text.head_dim) == (
        2,
        256,
        4,
        2,
        64,
    )
    assert (text.context_tokens, text.vocabulary, text.tied_embeddings) == (256, 400, True)
    assert (vision.layers, vision.hidden, vision.tokens) == (2, 64, 16)
    assert checkpoint.semantics.tower.feature_layer == -1
    assert checkpoint.licence == "apache-2.0"


def test_tensors_are_the_same_when_nested_as_another_transformers_nests_them(own_folder):
    before = open_checkpoint(own_folder)
    expected = {name: before.tensors.read(name) for name in before.tensors.names()}
    rename_tensors(own_folder, as_transformers_5)
    after = open_checkpoint(own_folder)
    assert set(after.tensors.names()) == set(expected)
    assert all(torch.equal(after.tensors.read(name), expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("language_model.model.norm.weight", "text.model.norm.weight"),
        ("model.language_model.norm.weight", "text.model.norm.weight"),
        ("language_model.lm_head.weight", "text.lm_head.weight"),
        ("lm_head.weight", "text.lm_head.weight"),
        ("model.vision_tower.vision_model.head.probe", "vision.head.probe"),
        ("vision_tower.embeddings.patch_embedding.bias", "vision.embeddings.patch_embedding.bias"),
        ("model.multi_modal_projector.linear_2.bias", "connector.2.bias"),
    ],
)
def test_neutral_name_knows_every_nesting(key, expected):
    assert neutral_name(key) == expected


def test_open_checkpoint_refuses_foreign_tensors(own_folder):
    rename_tensors(own_folder, lambda key: key.replace("vision_tower.", "audio_tower."))
    with pytest.raises(CheckpointError, match="audio_tower"):
        open_checkpoint(own_folder)


def test_open_checkpoint_reads_shards(own_folder):
    whole = open_checkpoint(own_folder)
    tensors = load_file(own_folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, own_folder / file)
    (own_folder / "model.safetensors").unlink()
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (own_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = open_checkpoint(own_folder)
    for name in whole.tensors.names("text."):
        assert sharded.tensors.shape(name) == tuple(sharded.tensors.read(name).shape)
    assert set(sharded.tensors.names()) == set(whole.tensors.names())
    (own_folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard b\.safetensors is missing"):
        open_checkpoint(own_folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", 3])
def test_open_checkpoint_refuses_shards_outside_the_folder(own_folder, shard):
    (own_folder / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": shard}}
    (own_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no plain file name"):
        open_checkpoint(own_folder)


def test_open_checkpoint_says_so_when_the_folder_is_missing_or_a_file(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointError, match="not a folder"):
        open_checkpoint(file)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "null", "\xff"])
def test_open_checkpoint_refuses_a_configuration_that_is_no_json_object(own_folder, text):
    (own_folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match="JSON"):
        open_checkpoint(own_folder)


def test_open_checkpoint_names_what_is_supported_when_the_model_type_is_not(own_folder):
    edit_json(own_folder / "config.json", model_type="paligemma")
    with pytest.raises(CheckpointError, match=r"'paligemma'.*supported: llava"):
        open_checkpoint(own_folder)


@pytest.mark.parametrize(("part", "kind"), [("text_config", "mamba"), ("vision_config", "swin")])
def test_open_checkpoint_names_what_is_supported_when_a_part_is_not(own_folder, part, kind):
    config = json.loads((own_folder / "config.json").read_text())
    edit_json(own_folder / "config.json", **{part: {**config[part], "model_type": kind}})
    with pytest.raises(CheckpointError, match=rf"'{kind}' is not supported; supported: "):
        open_checkpoint(own_folder)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vision_feature_layer": -2}, "tower.feature_layer"),
        ({"vision_feature_select_strategy": "default"}, "tower.dropped_tokens"),
        ({"projector_hidden_act": "relu"}, "connector.activation"),
    ],
)
def test_open_checkpoint_refuses_semantics_that_contradict_the_configuration(
    own_folder, change, field
):
    edit_json(own_folder / "config.json", **change)
    with pytest.raises(CheckpointError, match=field):
        open_checkpoint(own_folder)


def test_open_checkpoint_refuses_a_context_longer_than_the_model_has(own_folder):
    edit_json(own_folder / "tinyllava.json", context_tokens=257)
    with pytest.raises(CheckpointError, match="context_tokens = 257"):
        open_checkpoint(own_folder)


def test_open_checkpoint_refuses_token_ids_outside_the_vocabulary(own_folder):
    semantics = json.loads((own_folder / "tinyllava.json").read_text())
    semantics["prompt"]["eos_token_ids"] = [1, 400]
    (own_folder / "tinyllava.json").write_text(json.dumps(semantics))
    with pytest.raises(CheckpointError, match="token 400, the vocabulary has 400"):
        open_checkpoint(own_folder)


@pytest.mark.parametrize("section", [None, [], "llama"])
def test_open_checkpoint_refuses_a_configuration_without_its_parts(own_folder, section):
    edit_json(own_folder / "config.json", text_config=section)
    with pytest.raises(CheckpointError, match="has no text_config"):
        open_checkpoint(own_folder)


def test_open_checkpoint_derives_the_meaning_when_none_is_stated(own_folder):
    (own_folder / "tinyllava.json").unlink()
    edit_json(own_folder / "tokenizer_config.json", bos_token="<s>", eos_token="</s>")
    semantics = open_checkpoint(own_folder).semantics
    assert semantics.tower.feature_layer == -1
    assert semantics.connector.image_tokens == 16
    assert semantics.image.aspect == "squash"
    assert semantics.prompt.eos_token_ids == (1,)
    assert "prompt" in semantics.notes


def test_open_checkpoint_refuses_damaged_and_pickled_weights(own_folder):
    weights = own_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(own_folder)
    weights.rename(own_folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: damaged"):
        open_checkpoint(own_folder)
    (own_folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        open_checkpoint(own_folder)


def test_require_tensors_names_the_tensor_when_one_is_missing_or_misshapen(own_folder):
    tensors = load_file(own_folder / "model.safetensors")
    name = next(key for key in tensors if "layers.1.mlp.up_proj" in key)
    full = tensors.pop(name)
    save_file(tensors, own_folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight is missing"):
        require_tensors(open_checkpoint(own_folder))
    save_file({**tensors, name: full[:100].contiguous()}, own_folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has shape \[100, 256\].*\[512, 256\]"):
        require_tensors(open_checkpoint(own_folder))


def test_fingerprint_changes_with_weights_and_configuration_only(own_folder, tmp_path):
    before = open_checkpoint(own_folder).sha256
    (own_folder / "README.md").write_text("other words")
    assert open_checkpoint(own_folder).sha256 == before
    copy = shutil.copytree(own_folder, tmp_path / "elsewhere")
    assert open_checkpoint(copy).sha256 == before
    edit_json(own_folder / "config.json", _comment="changed")
    assert open_checkpoint(own_folder).sha256 != before
    rename_tensors(copy, as_transformers_5)
    assert open_checkpoint(copy).sha256 != before


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ],
)
def test_text_config_keeps_the_rotary_base_however_it_is_written(rope):
    completed = complete_text_config({"model_type": "llama", "hidden_size": 256, **rope})
    assert text_shape(completed).rope_theta == 5e5


def test_text_config_refuses_rotary_scaling():
    with pytest.raises(CheckpointError, match="'yarn' is not supported"):
        complete_text_config({"model_type": "llama", "rope_scaling": {"rope_type": "yarn"}})


@pytest.mark.parametrize(("layer", "used"), [(-1, 27), (-2, 26), (27, 27), (1, 1), (-27, 1)])
def test_used_layers_counts_what_the_features_pass_through(layer, used):
    assert used_layers(27, layer) == used


@pytest.mark.parametrize("layer", [0, -28, 28])
def test_used_layers_refuses_layers_that_are_not_there(layer):
    with pytest.raises(CheckpointError, match=f"feature_layer {layer} of a tower with 27"):
        used_layers(27, layer)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Card\n", "mit"),
        ("# No front matter\nlicense: mit\n", UNKNOWN),
        ("---\nlicense: [a, b]\n---\n", UNKNOWN),
        ("---\n: : :\n- [\n---\n", UNKNOWN),
        ("---\nlicense: mit\n", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_licence_is_what_the_front_matter_says_and_never_guessed(tmp_path, card, licence):
    (tmp_path / "README.md").write_text(card)
    assert read_licence(tmp_path) == licence


def test_licence_is_unknown_when_there_is_no_card(tmp_path):
    assert read_licence(tmp_path) == UNKNOWN
