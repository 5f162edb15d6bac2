import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize

from tinyllava_export.calibration import drawn_calibration
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.gguf.importance import measure_importance
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.gguf.quantize import NEED_IMPORTANCE, census, quantize, wants_importance
from tinyllava_export.pipeline import export_bundle
from tinyllava_export.plan import ExportOptions
from tinyllava_export.source import Source, source_pixels


@pytest.fixture(scope="module")
def checkpoint(tiny_folder):
    return open_checkpoint(tiny_folder)


@pytest.fixture(scope="module")
def source(checkpoint):
    return Source(checkpoint)


@pytest.fixture(scope="module")
def importance(checkpoint, source):
    return measure_importance(checkpoint, source, drawn_calibration())


@pytest.fixture(scope="module")
def float_file(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("importance") / "llm.gguf"
    write_language_model(checkpoint, path, name="tiny", precision="F32")
    return path


def test_every_matrix_but_the_embedding_table_has_its_inputs_weighed(importance):
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    assert set(importance) == {f"blk.{i}.{part}.weight" for i in (0, 1) for part in parts}
    assert importance["blk.0.attn_q.weight"].shape == (256,)
    assert importance["blk.1.ffn_down.weight"].shape == (512,)
    for numbers in importance.values():
        assert numbers.dtype == np.float32
        assert (numbers > 0).all()


@torch.no_grad()
def test_importance_is_the_mean_square_of_what_the_matrix_is_given(checkpoint, source, importance):
    """The first layer's queries: normed embeddings of prompts, pictures and answers."""
    model, rows = source.language_model.model, []
    for number in range(4):
        item = drawn_calibration().items[3 * number]
        embeds = source.see(source_pixels(item.picture, source.semantics.image))
        answer = source.answer(embeds, item.question, max_tokens=16)
        prompt = source._prompt(embeds, item.question, ())
        told = source._embed(list(answer.token_ids))
        rows.append(model.layers[0].input_layernorm(torch.cat([prompt, told], dim=1))[0])
    expected = torch.cat(rows).double().square().mean(dim=0).float().numpy()
    assert np.allclose(importance["blk.0.attn_q.weight"], expected, rtol=1e-4)


def test_nothing_watches_the_source_afterwards(source, importance):
    hooks = [module._forward_pre_hooks for module in source.language_model.modules()]
    assert not any(hooks)


def test_a_type_that_needs_importance_can_be_made_with_it(float_file, importance, tmp_path):
    # One of the nine: llama.cpp spends seconds on the tables of the others.
    quant = "Q2_K_S"
    assert quant in NEED_IMPORTANCE
    with pytest.raises(ExportError, match="Q2_K_S is made with an importance matrix only"):
        quantize(float_file, tmp_path / "without.gguf", quant, threads=1)
    quantize(float_file, tmp_path / "with.gguf", quant, threads=1, importance=importance)
    assert census(tmp_path / "with.gguf")


def test_importance_lets_unimportant_inputs_be_rounded_more(float_file, tmp_path):
    """Half of the inputs said not to matter: the other half comes out closer to the source."""
    name, inputs = "blk.0.attn_q.weight", 256
    weights = np.ones(inputs, dtype=np.float32)
    weights[::2] = 1e-4
    everything = {
        tensor.name: np.ones(tensor.shape[0], dtype=np.float32)
        for tensor in GGUFReader(float_file).tensors
        if len(tensor.shape) == 2
    }

    def error_of_the_rest(importance, file):
        quantize(float_file, tmp_path / file, "Q2_K", threads=1, importance=importance)
        tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / file).tensors}
        rounded = dequantize(tensors[name].data, tensors[name].tensor_type)
        full = {tensor.name: tensor for tensor in GGUFReader(float_file).tensors}[name].data
        return np.square(rounded - full)[:, 1::2].mean()

    told = error_of_the_rest(everything | {name: weights}, "told.gguf")
    assert told < 0.9 * error_of_the_rest(everything, "untold.gguf")


def test_an_export_to_two_bits_measures_importance_and_says_so(tiny_folder, tmp_path):
    told = []
    options = ExportOptions(
        out=tmp_path / "bundle", bits=2, vision_bits=32, mmproj=False, threads=1
    )
    exported = export_bundle(tiny_folder, options, told.append)
    [llm] = [part for part in exported.manifest.components if part.role == "llm"]
    assert llm.quantization.startswith("Q2_K (")
    assert llm.quantization.endswith("; importance of drawn pictures)")
    assert told[0] == "measuring which weights matter (drawn pictures)"


def test_importance_is_measured_for_three_bits_and_less():
    assert all(wants_importance(quant) for quant in ("Q2_K", "Q3_K_M", "IQ3_S", *NEED_IMPORTANCE))
    assert not any(
        wants_importance(quant) for quant in ("Q4_K_M", "IQ4_NL", "Q8_0", "F16", "TQ1_0")
    )
