import hashlib

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from tinyllava_edge.engines.llama_runtime import LlamaRuntime, Step
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.gguf.language_model import lossless_precision, write_language_model
from tinyllava_export.gguf.quantize import (
    NEED_IMPORTANCE,
    QUANT_OF_BITS,
    census,
    choose_quant,
    known_quants,
    quantize,
)

IDS = [0, 40, 300, 17, 120, 260, 399, 77]


def write(folder, path, precision="F32"):
    write_language_model(open_checkpoint(folder), path, name="tiny", precision=precision)
    return path


def llama_logits(path, ids=IDS):
    """Logits at every position, ``[len(ids), vocabulary]``."""
    llama = LlamaRuntime(path, cells=64, sequences=1, threads=1, gpu_layers=0)
    try:
        return llama.decode([Step(token, i, 0, wanted=True) for i, token in enumerate(ids)])
    finally:
        llama.close()


@torch.no_grad()
def torch_logits(model, ids=IDS):
    return model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.fixture(scope="module")
def float_file(tiny_folder, tmp_path_factory):
    return write(tiny_folder, tmp_path_factory.mktemp("gguf") / "llm.gguf")


@pytest.mark.parametrize("tied", [True, False])
def test_gguf_logits_are_those_of_transformers(write_checkpoint, tmp_path, tied):
    model = write_checkpoint(tmp_path, tied=tied)
    expected = torch_logits(model)
    logits = llama_logits(write(tmp_path, tmp_path / "llm.gguf"))
    # llama.cpp keeps keys and values in float16; a wrong rotary order moves logits by about 1.
    assert np.abs(logits - expected).max() < 0.02
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_gguf_logits_move_when_q_and_k_keep_their_order(write_checkpoint, tmp_path, monkeypatch):
    model = write_checkpoint(tmp_path)
    monkeypatch.setattr(
        "tinyllava_export.gguf.tensor_layout.pair_rotary_dims", lambda name, tensor, text: tensor
    )
    logits = llama_logits(write(tmp_path, tmp_path / "llm.gguf"))
    assert np.abs(logits - torch_logits(model)).max() > 0.2


def test_output_head_is_written_only_when_it_is_not_tied(write_checkpoint, tmp_path, float_file):
    assert "output.weight" not in {tensor.name for tensor in GGUFReader(float_file).tensors}
    write_checkpoint(tmp_path, tied=False)
    untied = GGUFReader(write(tmp_path, tmp_path / "llm.gguf"))
    assert "output.weight" in {tensor.name for tensor in untied.tensors}


def test_settings_and_ids_are_complete(float_file):
    fields = GGUFReader(float_file).fields
    expected = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.license": "apache-2.0",
        "llama.context_length": 256,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 64,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 4,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
    }
    assert {name: fields[name].contents() for name in expected} == expected


def test_vocabulary_is_padded_to_the_embedding_table(write_checkpoint, tmp_path):
    model = write_checkpoint(tmp_path, vocabulary=416)
    logits = llama_logits(write(tmp_path, tmp_path / "llm.gguf"))
    assert logits.shape == (len(IDS), 416)
    assert np.abs(logits - torch_logits(model)).max() < 0.02


def test_half_precision_checkpoint_stays_half_and_keeps_vectors_in_float32(
    write_checkpoint, tmp_path
):
    write_checkpoint(tmp_path, half=True)
    checkpoint = open_checkpoint(tmp_path)
    assert lossless_precision(checkpoint) == "F16"
    path = write(tmp_path, tmp_path / "llm.gguf", "F16")
    assert census(path) == "f16 15, f32 5"
    stored = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    embeddings = checkpoint.tensors.read("text.model.embed_tokens.weight").numpy()
    assert np.array_equal(stored["token_embd.weight"], embeddings)


def test_bfloat16_checkpoint_stays_bfloat16(write_checkpoint, tmp_path):
    model = write_checkpoint(tmp_path).bfloat16()
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert lossless_precision(checkpoint) == "BF16"
    path = write(tmp_path, tmp_path / "llm.gguf", "BF16")
    assert census(path) == "bf16 15, f32 5"
    stored = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    embeddings = checkpoint.tensors.read("text.model.embed_tokens.weight")
    assert np.array_equal(stored["token_embd.weight"].view(np.int16), embeddings.view(torch.int16))
    # llama.cpp rounds activations to bfloat16 as well.
    assert np.abs(llama_logits(path) - torch_logits(model.float())).max() < 0.1


def test_float_checkpoint_is_not_squeezed_into_half_precision(tiny_folder):
    assert lossless_precision(open_checkpoint(tiny_folder)) == "F32"


def test_same_checkpoint_gives_the_same_bytes(tiny_folder, float_file, tmp_path):
    again = write(tiny_folder, tmp_path / "llm.gguf")
    assert again.read_bytes() == float_file.read_bytes()


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q8_0", "IQ4_NL", "Q2_K", "BF16"])
def test_quantized_file_loads_and_stays_near_the_source(float_file, tmp_path, quant):
    path = tmp_path / "quantized.gguf"
    quantize(float_file, path, quant, threads=1)
    logits, expected = llama_logits(path), llama_logits(float_file)
    cosine = (logits * expected).sum() / np.linalg.norm(logits) / np.linalg.norm(expected)
    assert cosine > (0.7 if quant == "Q2_K" else 0.95)
    assert path.stat().st_size < 0.6 * float_file.stat().st_size


@pytest.mark.parametrize("quant", sorted(known_quants().keys() - NEED_IMPORTANCE))
def test_every_quant_that_needs_no_importance_can_be_made(float_file, tmp_path, quant):
    path = tmp_path / "quantized.gguf"
    quantize(float_file, path, quant, threads=1)
    assert census(path)


def test_quantizing_with_more_threads_gives_the_same_bytes(float_file, tmp_path):
    digests = set()
    for threads in (1, 3):
        path = tmp_path / f"{threads}.gguf"
        quantize(float_file, path, "Q4_K_M", threads=threads)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_census_tells_what_really_came_out(float_file, tmp_path):
    quantize(float_file, tmp_path / "q.gguf", "Q4_K_M", threads=1)
    assert census(tmp_path / "q.gguf") == "q4_K 12, f32 5, q6_K 3"


def test_quantize_says_so_when_llama_cpp_refuses(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(ExportError, match="could not make Q4_K_M"):
        quantize(broken, tmp_path / "out.gguf", "Q4_K_M", threads=1)


@pytest.mark.parametrize(("bits", "quant"), QUANT_OF_BITS.items())
def test_choose_quant_takes_the_usual_type_of_the_bits(bits, quant):
    assert choose_quant(bits, None) == quant
    assert quant in known_quants()


def test_choose_quant_prefers_the_named_type_in_any_case():
    assert choose_quant(8, "iq4_nl") == "IQ4_NL"


def test_choose_quant_lists_the_known_ones_when_it_does_not_know():
    with pytest.raises(ExportError, match=r"'Q4_K_XL' is not known; known: .*Q4_K_M"):
        choose_quant(4, "Q4_K_XL")
    with pytest.raises(ExportError, match=r"--bits 7 is not known; known: .*4 \(Q4_K_M\)"):
        choose_quant(7, None)
