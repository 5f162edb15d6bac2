"""The importer and the float32 source against what the official code computes."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from tinyllava_edge.preprocess import pixels
from tinyllava_edge.prompt import prefix_text, question_text
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.source import Source, source_pixels

CASES = (
    "factory-phi-siglip-full",
    "factory-qwen2-siglip-split",
    "factory-tinyllama-clip-resampler",
    "factory-tinyllama-siglip-lora",
    "hf-llava-tinyllama-clip",
    "legacy-phi-siglip",
)
FORMATS = {"hf-llava": "transformers-llava"}
PIXELS, FEATURES, LOGITS = 1e-6, 1e-4, 1e-4
# What only shows where the features are compared, or is no mistake of ours.
TOO_SMALL_FOR_LOGITS = ("vision_activation=erf_gelu", "pixel_values_rounded_to_float16")


@pytest.fixture(scope="module", params=CASES)
def case(request, golden_case):
    return golden_case(request.param)


@pytest.fixture(scope="module")
def checkpoint(case):
    return open_checkpoint(case.checkpoint)


@pytest.fixture(scope="module")
def source(checkpoint):
    return Source(checkpoint)


def largest_difference(a, b):
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def seen(source, picture):
    return source.see(source_pixels(picture, source.semantics.image))


def prompt_ids(source, question, placeholder):
    bos = source.semantics.prompt.bos_token_id
    before = source.token_ids(prefix_text(source.semantics))
    after = source.token_ids(question_text(question, (), source.semantics))
    return [*([] if bos is None else [bos]), *before, placeholder, *after]


def test_checkpoint_is_read_as_what_it_is(case, checkpoint):
    facts = case.facts
    assert checkpoint.format == FORMATS.get(facts["format"], facts["format"])
    assert checkpoint.text.vocabulary == facts["logits_width"]
    assert checkpoint.text.tied_embeddings == facts["tie_word_embeddings"]
    assert checkpoint.semantics.connector.image_tokens == facts["n_image_tokens"]
    assert checkpoint.semantics.tower.activation == facts["vision_hidden_act"]
    assert facts["eos_token_id"] in checkpoint.semantics.prompt.eos_token_ids


def test_every_tensor_has_the_shape_that_is_announced(checkpoint):
    for name in checkpoint.tensors.names():
        assert tuple(checkpoint.tensors.read(name).shape) == checkpoint.tensors.shape(name)


def test_prompt_ids_are_equal(case, source):
    for _, question, key in case.prompts:
        ids = prompt_ids(source, question, case.facts["image_token_index"])
        assert ids == case.arrays[f"input_ids_{key}"].tolist()


def test_pixels_are_equal(case, checkpoint):
    for picture, facts in zip(case.pictures, case.facts["images"], strict=True):
        ours = pixels(picture, checkpoint.semantics.image)
        meant = facts["pixel_values"]["sha256"]
        assert hashlib.sha256(ours.astype("<f4").tobytes()).hexdigest() == meant
        assert largest_difference(ours, source_pixels(picture, checkpoint.semantics.image)) < PIXELS


def test_image_features_are_within_the_limit(case, source):
    for number, picture in enumerate(case.pictures):
        features = seen(source, picture)
        expected = case.arrays[f"image_features_{number}"]
        assert features.shape == expected.shape
        assert largest_difference(features, expected) < FEATURES


def test_logits_are_within_the_limit_and_greedy_tokens_equal(case, source):
    embeds = [seen(source, picture) for picture in case.pictures]
    for number, question, key in case.prompts:
        tokens = case.arrays[f"gen_ids_{key}"]
        answer = source.answer(embeds[number], question, max_tokens=len(tokens))
        assert largest_difference(answer.logits, case.arrays[f"logits_{key}"]) < LOGITS
        assert list(answer.token_ids) == tokens.tolist()


def test_limits_lie_below_what_a_mistake_moves(case):
    moved = case.facts["sensitivity_logits_0_0_max_abs_diff"]
    assert all(moved[name] > 10 * LOGITS for name in moved if name not in TOO_SMALL_FOR_LOGITS)
    features = case.facts["sensitivity_image_features_0_max_abs_diff"]
    assert all(value > 10 * FEATURES for value in features.values())


def wrong_layer(semantics):
    tower = semantics.tower
    return {"tower": tower.model_copy(update={"feature_layer": tower.feature_layer - 1})}


def first_token_kept_or_dropped(semantics):
    tower, connector = semantics.tower, semantics.connector
    dropped = 1 - tower.dropped_tokens
    tokens = connector.image_tokens + tower.dropped_tokens - dropped
    return {
        "tower": tower.model_copy(update={"dropped_tokens": dropped}),
        "connector": connector.model_copy(update={"image_tokens": tokens}),
    }


def other_aspect(semantics):
    aspect = "squash" if semantics.image.aspect == "pad" else "pad"
    return {"image": semantics.image.model_copy(update={"aspect": aspect})}


@pytest.mark.parametrize("mistake", [wrong_layer, first_token_kept_or_dropped, other_aspect])
@pytest.mark.parametrize("name", ["factory-phi-siglip-full", "legacy-phi-siglip"])
def test_planted_mistakes_are_caught(golden_case, name, mistake):
    case = golden_case(name)
    right = open_checkpoint(case.checkpoint)
    semantics = right.semantics.model_copy(update=mistake(right.semantics))
    source = Source(replace(right, semantics=semantics))
    features = seen(source, case.pictures[0])
    expected = case.arrays["image_features_0"]
    assert features.shape != expected.shape or largest_difference(features, expected) > FEATURES
    _, question, key = case.prompts[0]
    answer = source.answer(features, question, max_tokens=1)
    assert largest_difference(answer.logits, case.arrays[f"logits_{key}"]) > 100 * LOGITS
