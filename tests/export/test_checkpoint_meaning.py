"""What is derived from settings and tensor shapes, beyond what the golden cases show."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.checkpoints.connectors import connector_config, connector_semantics
from tinyllava_export.checkpoints.image_processor import processor_semantics
from tinyllava_export.checkpoints.prompts import end_token_ids
from tinyllava_export.checkpoints.shapes import complete_text_config, text_shape
from tinyllava_export.checkpoints.tensors import FirstRows, Tensors, Zeros
from tinyllava_export.checkpoints.tokenizer import TokenizerFacts
from tinyllava_export.checkpoints.tower_sizes import dinov2_config, tower_config
from tinyllava_export.checkpoints.towers import (
    CLIP,
    DINOV2,
    MOF,
    SIGLIP,
    image_semantics,
    known_tower,
)
from tinyllava_export.errors import CheckpointError


@pytest.fixture
def own(golden_case, tmp_path):
    def copy(name):
        return shutil.copytree(golden_case(name).checkpoint, tmp_path / name)

    return copy


def outline(shapes):
    return Tensors({name: Zeros(shape) for name, shape in shapes.items()})


def edit(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("kind", "settings", "tokens", "leaving"),
    [
        ("mlp2x_gelu", {}, 728, 728),
        ("mlp3x_gelu", {}, 576, 576),
        ("linear", {}, 5, 5),
        ("identity", {}, 5, 5),
        ("mof_mlp", {}, 512, 512),
        ("resampler", {}, 576, 128),
        ("resampler", {"num_queries": 32}, 576, 32),
    ],
)
def test_connectors_let_as_many_tokens_out_as_they_make(kind, settings, tokens, leaving):
    semantics = connector_semantics(connector_config(kind, settings, outline({})), tokens)
    assert (semantics.kind, semantics.image_tokens) == (kind, leaving)


def test_connector_numbers_are_those_of_the_settings():
    resampler = connector_config(
        "resampler", {"num_queries": 9, "num_resampler_layers": 2}, outline({})
    )
    assert (resampler["queries"], resampler["layers"], resampler["heads"]) == (9, 2, 8)
    assert connector_config("mlp3x_gelu", {}, outline({}))["depth"] == 3
    with pytest.raises(CheckpointError, match="num_queries is 0"):
        connector_config("resampler", {"num_queries": 0}, outline({}))


@pytest.mark.parametrize(
    ("family", "ratio", "aspect", "size", "short_side", "fill"),
    [
        (SIGLIP, "square", "squash", 384, None, (127, 127, 127)),
        (SIGLIP, "pad", "pad", 384, None, (127, 127, 127)),
        (CLIP, None, "crop", 384, None, (122, 116, 104)),
        (MOF, "square", "crop", 384, None, (122, 116, 104)),
        (DINOV2, "square", "crop", 224, 256, (123, 116, 103)),
        (DINOV2, "pad", "pad", 224, 256, (123, 116, 103)),
    ],
)
def test_pictures_are_prepared_as_the_familys_processor_does(
    family, ratio, aspect, size, short_side, fill
):
    semantics = image_semantics(family, 384, ratio, {})
    assert (semantics.aspect, semantics.size, semantics.short_side) == (aspect, size, short_side)
    assert semantics.fill_rgb == fill


def test_known_towers_are_found_by_the_last_part_of_their_name():
    assert known_tower("google/siglip-so400m-patch14-384").heads == 16
    assert known_tower("/models/openai/clip-vit-large-patch14-336/").activation == "quick_gelu"
    assert known_tower("bczhou/TinyLLaVA-2.0B-SigLIP").image_size == 384


@pytest.mark.parametrize(
    ("settings", "aspect"),
    [
        ({"do_center_crop": True, "crop_size": {"height": 336, "width": 336}}, "crop"),
        ({"size": {"height": 336, "width": 336}}, "squash"),
        ({"size": {"height": 336, "width": 336}, "do_pad": True}, "pad"),
        ({"size": 336, "crop_size": 336}, "crop"),
        ({}, "squash"),
    ],
)
def test_image_processor_files_say_how_pictures_fit(tmp_path, settings, aspect):
    content = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    semantics = processor_semantics(tmp_path, CLIP, 336, {})
    assert (semantics.aspect, semantics.resample) == (aspect, "bilinear")
    assert (semantics.mean, semantics.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_missing_image_processor_is_noted(tmp_path):
    notes = {}
    assert processor_semantics(tmp_path, SIGLIP, 384, notes).aspect == "squash"
    assert "no preprocessor_config.json" in notes["image"]


@pytest.mark.parametrize(
    ("generation", "named", "model", "expected"),
    [
        (None, 7, 3, (7,)),
        ([7, 9], 7, 3, (7, 9)),
        (5, None, 3, (5,)),
        (None, None, 3, (3,)),
        (None, None, [3, 4], (3, 4)),
    ],
)
def test_end_tokens_are_the_tokenizers_then_the_settings(
    tmp_path, generation, named, model, expected
):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    facts = TokenizerFacts(
        None, named, adds_space=False, spaces_first=False, unicode_form="as_is", length=10
    )
    assert end_token_ids(tmp_path, {"eos_token_id": model}, facts) == expected


def test_no_end_token_is_refused(tmp_path):
    facts = TokenizerFacts(
        None, None, adds_space=False, spaces_first=False, unicode_form="as_is", length=10
    )
    with pytest.raises(CheckpointError, match="no end-of-sequence token"):
        end_token_ids(tmp_path, {}, facts)


def test_zeros_and_first_rows_announce_what_they_give():
    rows = FirstRows(Zeros((5, 2)), 3)
    assert rows.shape == tuple(rows.read().shape) == (3, 2)
    assert FirstRows(Zeros((2, 2)), 3).shape == (2, 2)
    assert rows.dtype == "F16"


def test_dinov2_sizes_follow_from_its_tensors():
    shapes = {
        "vision.embeddings.patch_embeddings.projection.weight": (384, 3, 14, 14),
        "vision.embeddings.position_embeddings": (1, 1370, 384),
        "vision.encoder.layer.0.mlp.fc1.weight": (1536, 384),
        "vision.encoder.layer.11.mlp.fc1.weight": (1536, 384),
    }
    settings = dinov2_config(outline(shapes), "vision.", "facebook/dinov2-small")
    assert (settings["image_size"], settings["num_hidden_layers"]) == (518, 12)
    assert (settings["num_attention_heads"], settings["mlp_ratio"]) == (6, 4)
    swiglu = outline(shapes | {"vision.encoder.layer.0.mlp.weights_in.weight": (4, 384)})
    assert dinov2_config(swiglu, "vision.", "")["use_swiglu_ffn"] is True


@pytest.mark.parametrize(
    ("name", "hidden", "heads"),
    [
        ("facebook/dinov2-large", 1024, 16),
        ("facebook/dinov2-large", 64, 16),
        ("facebook/dinov2-with-registers-base", 768, 12),
        ("mine", 384, 6),
        ("mine", 48, 1),
    ],
)
def test_dinov2_heads_are_those_of_the_named_size(name, hidden, heads):
    shapes = {
        "embeddings.patch_embeddings.projection.weight": (hidden, 3, 14, 14),
        "embeddings.position_embeddings": (1, 257, hidden),
        "encoder.layer.0.mlp.fc1.weight": (4 * hidden, hidden),
    }
    assert dinov2_config(outline(shapes), "", name)["num_attention_heads"] == heads


def test_q_former_sizes_follow_from_its_tensors():
    shapes = {
        "connector.query_tokens": (1, 64, 768),
        "connector.bert.encoder.layer.11.attention.self.query.weight": (768, 768),
        "connector.bert.encoder.layer.0.intermediate_query.dense.weight": (3072, 768),
    }
    settings = connector_config("qformer", {}, outline(shapes))
    assert (settings["queries"], settings["layers"], settings["heads"]) == (64, 12, 12)
    assert connector_semantics(settings, 576).image_tokens == 64
    with pytest.raises(CheckpointError, match=r"connector\.query_tokens is missing"):
        connector_config("qformer", {}, outline({}))


def test_a_tower_of_another_size_than_the_named_one_is_refused():
    shapes = {
        "vision.embeddings.patch_embedding.weight": (192, 3, 14, 14),
        "vision.embeddings.position_embedding.weight": (576, 192),
    }
    with pytest.raises(CheckpointError, match="has 576 positions, pictures of 384 need 729"):
        tower_config(outline(shapes), "vision.", known_tower("siglip-so400m-patch14-384"))
    with pytest.raises(CheckpointError, match="vision tower included"):
        tower_config(outline({}), "vision.", known_tower("siglip-so400m-patch14-384"))


def test_gemma_computes_the_tanh_form_whatever_hidden_act_says():
    completed = complete_text_config({"model_type": "gemma", "hidden_act": "gelu"})
    assert completed["hidden_act"] == "gelu_pytorch_tanh"
    assert text_shape(completed).head_dim == 256
    erf = complete_text_config({"model_type": "gemma", "hidden_activation": "gelu"})
    assert erf["hidden_act"] == "gelu"


def test_partial_rotary_is_read_however_it_is_written():
    old = complete_text_config({"model_type": "phi", "partial_rotary_factor": 0.4})
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}
    new = complete_text_config({"model_type": "phi", "rope_parameters": rope})
    assert old["partial_rotary_factor"] == new["partial_rotary_factor"] == 0.4


def test_legacy_stablelm_words_become_those_of_transformers(own):
    folder = own("legacy-phi-siglip")
    config = json.loads((folder / "config.json").read_text())
    for word in ("partial_rotary_factor", "layer_norm_eps"):
        config.pop(word)
    config |= {"model_type": "tiny_llava_stablelm", "hidden_act": "silu"}
    config |= {"rope_pct": 0.3, "norm_eps": 1e-3}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.text.family == "stablelm"
    assert checkpoint.text.norm_eps == 1e-3
    assert checkpoint.text_config["partial_rotary_factor"] == 0.3
    assert checkpoint.text_config["use_qkv_bias"] is True
    assert "text.lm_head.bias" not in checkpoint.tensors


def test_legacy_vocabulary_grows_by_the_tokens_that_the_loader_adds(own):
    folder = own("legacy-phi-siglip")
    edit(folder / "config.json", mm_use_im_patch_token=True, mm_use_im_start_end=True)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.text.vocabulary == 659 + 3
    assert checkpoint.tensors.shape("text.lm_head.weight") == (662, 64)
    assert checkpoint.tensors.shape("text.lm_head.bias") == (662,)


def test_legacy_tower_that_still_has_its_last_layer_is_read_one_earlier(own):
    folder = own("legacy-phi-siglip")
    shard = folder / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    layer = "model.vision_tower.vision_tower.vision_model.encoder.layers.26.layer_norm1.bias"
    save_file({**tensors, layer: torch.zeros(192)}, shard)
    semantics = open_checkpoint(folder).semantics
    assert semantics.tower.feature_layer == -2
    assert "-2 of 27 stored layers" in semantics.notes["tower.feature_layer"]


def test_factory_keeps_the_first_token_when_the_strategy_says_so(own):
    folder = own("factory-phi-siglip-full")
    edit(folder / "config.json", vision_feature_select_strategy="cls_patch")
    semantics = open_checkpoint(folder).semantics
    assert (semantics.tower.dropped_tokens, semantics.connector.image_tokens) == (0, 729)
    assert "connector.image_tokens" not in semantics.notes


def test_factory_says_why_a_token_is_dropped(golden_case):
    notes = open_checkpoint(golden_case("factory-phi-siglip-full").checkpoint).semantics.notes
    assert notes["connector.image_tokens"].startswith("728, not 729")
    clip = open_checkpoint(golden_case("factory-tinyllama-clip-resampler").checkpoint).semantics
    assert "connector.image_tokens" not in clip.notes


def test_factory_names_of_two_towers_make_a_mixture(own):
    folder = own("factory-tinyllama-clip-resampler")
    path = folder / "model.safetensors"
    old = "vision_tower._vision_tower."
    tensors = {key.replace(old, f"{old}clip."): t for key, t in load_file(path).items()}
    shapes = {
        "embeddings.patch_embeddings.projection.weight": (64, 3, 14, 14),
        "embeddings.position_embeddings": (1, 26, 64),
        "encoder.layer.1.mlp.fc1.weight": (256, 64),
        "encoder.layer.0.mlp.fc1.weight": (256, 64),
    }
    tensors |= {f"{old}dinov2.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    save_file(tensors, path)
    edit(folder / "config.json", connector_type="mof_mlp")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.vision_config["dinov2"]["image_size"] == 70
    assert checkpoint.vision.tokens == 2 * 577
    assert checkpoint.semantics.connector.image_tokens == 2 * 576
    assert "vision.clip.embeddings.class_embedding" in checkpoint.tensors


HF = "hf-llava-tinyllama-clip"
LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.mark.parametrize("file", ["chat_template.json", "processor_config.json", "jinja"])
def test_a_processors_template_is_followed(own, file):
    folder = own(HF)
    if file == "jinja":
        (folder / "chat_template.jinja").write_text(LLAVA_TEMPLATE)
    else:
        (folder / file).write_text(json.dumps({"chat_template": LLAVA_TEMPLATE}))
    semantics = open_checkpoint(folder).semantics
    prompt = semantics.prompt
    assert (prompt.before_image, prompt.after_image, prompt.tail) == (
        "USER: ",
        "\n",
        " ASSISTANT:",
    )
    assert file in semantics.notes["prompt"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}",
        "{{ messages[0].content[1].text }}",
        "{{ raise_exception('no') }}",
        "{% for %}",
        "{{ messages.__class__.__mro__ }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_template_without_a_picture_is_not_followed(own, template):
    folder = own(HF)
    (folder / "chat_template.jinja").write_text(template)
    assert open_checkpoint(folder).semantics.prompt.tail == "\nASSISTANT:"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0].content[1].text }} <image>", "one picture before the question"),
        ("<image><image>{{ messages[0].content[1].text }}", "one picture before the question"),
        ("<image></s>{{ messages[0].content[1].text }}", "the control token '</s>'"),
    ],
)
def test_a_template_that_a_prompt_cannot_follow_is_refused(own, template, words):
    folder = own(HF)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(folder)


def test_the_folders_name_does_not_matter(own, tmp_path):
    folder = own("factory-phi-siglip-full").rename(tmp_path / "llava-lora-legacy")
    assert open_checkpoint(folder).format == "factory-full"
