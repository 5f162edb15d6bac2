"""Golden cases exported to GGUF at 32 bits: the edge's engine says what the official code said."""

import json
import shutil

import numpy as np
import pytest

from tinyllava_edge.bundle import open_bundle
from tinyllava_edge.engines.contract import Question
from tinyllava_edge.engines.llama_cpp import LlamaCppEngine
from tinyllava_edge.engines.llama_runtime import LlamaRuntime, Step
from tinyllava_edge.engines.options import EngineOptions
from tinyllava_edge.engines.vision import VisionEncoder
from tinyllava_edge.preprocess import pixels
from tinyllava_edge.prompt import in_unicode_form, prefix_text, question_text
from tinyllava_export.pipeline import export_bundle
from tinyllava_export.plan import ExportOptions

CASES = (
    "factory-phi-siglip-full",
    "factory-qwen2-siglip-split",
    "factory-tinyllama-clip-resampler",
    "factory-tinyllama-siglip-lora",
    "hf-llava-tinyllama-clip",
    "legacy-phi-siglip",
)
PIXELS, FEATURES = 1e-6, 1e-4
# llama.cpp keeps keys and values in float16: 0.0052 was the most, over all cases and answers.
LOGITS = 1e-2


@pytest.fixture(scope="module", params=CASES)
def case(request, golden_case):
    return golden_case(request.param)


@pytest.fixture(scope="module")
def exported(case, tmp_path_factory):
    """The whole export, with one question of the case to measure itself on."""
    folder = tmp_path_factory.mktemp("golden")
    checkpoint = shutil.copytree(case.checkpoint, folder / "checkpoint")
    calibration = checkpoint / "calibration"
    calibration.mkdir()
    case.pictures[0].save(calibration / "0.png")
    questions = [{"picture": "0.png", "question": case.prompts[0][1]}]
    (calibration / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    out = folder / "bundle"
    options = ExportOptions(out=out, bits=32, vision_bits=32, mmproj=False, threads=1)
    return export_bundle(checkpoint, options, report=lambda line: None)


@pytest.fixture(scope="module")
def bundle(exported):
    return open_bundle(exported.folder)


@pytest.fixture(scope="module")
def engine(bundle):
    engine = LlamaCppEngine(bundle, EngineOptions(threads=1, check_memory=False))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def llama(bundle):
    """The language model alone."""
    llama = LlamaRuntime(bundle.path("llm"), cells=1024, sequences=1, threads=1, gpu_layers=0)
    yield llama
    llama.close()


def largest_difference(a, b):
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def official_ids(case, key):
    """The ids before and after the picture."""
    ids = case.arrays[f"input_ids_{key}"].tolist()
    place = ids.index(case.facts["image_token_index"])
    return ids[:place], ids[place + 1 :]


def engine_ids(semantics, llama, question):
    """What the engine feeds before and after the picture."""
    texts = (prefix_text(semantics), question_text(question, (), semantics))
    before, after = (
        list(llama.tokenize(in_unicode_form(text, semantics.prompt))) for text in texts
    )
    bos = semantics.prompt.bos_token_id
    return ([] if bos is None else [bos]) + before, after


def last_logits(llama, before, features, after):
    llama.forget(0)
    llama.decode([Step(token, i, 0, wanted=False) for i, token in enumerate(before)])
    llama.decode_embeddings(features, position=len(before), sequence=0)
    start = len(before) + len(features)
    steps = [Step(token, start + i, 0, wanted=True) for i, token in enumerate(after)]
    return llama.decode(steps)[-1]


def test_export_measures_itself_as_faithful(exported):
    fidelity = exported.fidelity
    assert fidelity.kl_mean < 1e-5
    assert fidelity.vision_cosine_min > 0.99999
    assert fidelity.top1_agreement == fidelity.greedy_agreement == 1


def test_prompt_ids_are_the_official_ones(case, bundle, llama):
    for _, question, key in case.prompts:
        ids = engine_ids(bundle.manifest.semantics, llama, question)
        assert ids == official_ids(case, key)


def test_pixels_and_picture_features_are_the_official_ones(case, bundle):
    semantics = bundle.manifest.semantics
    encoder = VisionEncoder(bundle.path("vision"), semantics, threads=1)
    for number, picture in enumerate(case.pictures):
        seen = pixels(picture, semantics.image)
        if f"pixel_values_{number}" in case.arrays:
            assert largest_difference(seen, case.arrays[f"pixel_values_{number}"]) < PIXELS
        features = encoder.encode(seen)
        assert len(features) == case.facts["n_image_tokens"]
        assert largest_difference(features, case.arrays[f"image_features_{number}"]) < FEATURES


def test_logits_and_greedy_tokens_of_the_engine_are_the_official_ones(case, bundle, engine):
    ends = bundle.manifest.semantics.prompt.eos_token_ids
    for number, question, key in case.prompts:
        sight = engine.see(case.pictures[number], str(number))
        expected = case.arrays[f"gen_ids_{key}"].tolist()
        asked = Question(question, max_tokens=len(expected))
        logits = engine.prompt_logits(sight, asked)
        assert largest_difference(logits, case.arrays[f"logits_{key}"]) < LOGITS
        [reply] = engine.ask(sight, [asked])
        assert list(reply.token_ids) == [token for token in expected if token not in ends]


@pytest.mark.parametrize("mistake", ["other picture", "token dropped", "tokens shifted"])
def test_logits_move_with_a_mistake_in_the_picture(case, llama, mistake):
    _, _, key = case.prompts[0]
    before, after = official_ids(case, key)
    right = case.arrays["image_features_0"]
    wrong = {
        "other picture": case.arrays["image_features_1"],
        "token dropped": right[1:],
        "tokens shifted": np.roll(right, 1, axis=0),
    }
    expected = case.arrays[f"logits_{key}"]
    assert largest_difference(last_logits(llama, before, right, after), expected) < LOGITS
    moved = largest_difference(last_logits(llama, before, wrong[mistake], after), expected)
    assert moved > 2 * LOGITS
