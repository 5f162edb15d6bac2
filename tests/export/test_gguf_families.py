"""Every language-model family: llama.cpp gives the logits that transformers gives.

The weights are random and every one of them is moved away from its initial value, so that a
forgotten bias, a norm without its offset or a wrong rotary order shows in the logits.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    StableLmConfig,
)

from tinyllava_edge.engines.llama_runtime import LlamaRuntime, Step
from tinyllava_export.checkpoints import TextShape, open_checkpoint
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.errors import CheckpointError
from tinyllava_export.gguf import families
from tinyllava_export.gguf.families import FAMILIES, family_of, rotary_dims
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.gguf.tensor_layout import place_tensors

IDS = [0, 40, 300, 17, 120, 260, 399, 77]
PICTURE_AT = 3
# What llama.cpp's float16 keys, values and activation tables leave; the mistakes below move
# the logits by at least five times as much.
LIMIT = 0.01

SHAPE = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, rms_norm_eps=1e-5),
    "llama-biases": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**{**SHAPE, "tie_word_embeddings": True}, rope_theta=1e6),
    "qwen2-untied": Qwen2Config(**SHAPE),
    "phi": PhiConfig(**{**SHAPE, "num_key_value_heads": 4}, partial_rotary_factor=0.4),
    "phi-grouped": PhiConfig(**SHAPE, partial_rotary_factor=0.5),
    "stablelm": StableLmConfig(**SHAPE, use_qkv_bias=True, partial_rotary_factor=0.25),
    "stablelm-parallel": StableLmConfig(
        **SHAPE, use_parallel_residual=True, partial_rotary_factor=1.0
    ),
    "stablelm-tied": StableLmConfig(**{**SHAPE, "tie_word_embeddings": True}),
    "gemma": GemmaConfig(
        **{**SHAPE, "num_key_value_heads": 1, "tie_word_embeddings": True},
        head_dim=24,
        hidden_act="gelu_pytorch_tanh",
    ),
}


@dataclass(frozen=True)
class Held:
    """A tensor that is in memory already."""

    tensor: torch.Tensor
    dtype: str = "F32"

    @property
    def shape(self):
        return tuple(self.tensor.shape)

    def read(self):
        return self.tensor


def random_model(config):
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn_like(weight))
            else:
                weight.copy_(torch.randn_like(weight) * (0.5 if "embed" in name else 0.12))
    return model


def shape_of(config):
    heads = config.num_attention_heads
    eps = "layer_norm_eps" if hasattr(config, "layer_norm_eps") else "rms_norm_eps"
    return TextShape(
        family=config.model_type,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        context_tokens=config.max_position_embeddings,
        rope_theta=config.rope_theta,
        norm_eps=getattr(config, eps),
        tied_embeddings=config.tie_word_embeddings,
    )


def checkpoint_of(model, folder):
    """The tiny LLaVA checkpoint with this language model in place of its own."""
    places = {f"text.{name}": Held(tensor) for name, tensor in model.state_dict().items()}
    return replace(
        open_checkpoint(folder),
        text=shape_of(model.config),
        text_config=model.config.to_dict(),
        tensors=Tensors(places),
    )


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return random_model(CONFIGS[request.param])


@pytest.fixture
def checkpoint(model, tiny_folder):
    return checkpoint_of(model, tiny_folder)


def gguf_logits(path, embeds=None):
    """Last logits of IDS; with ``embeds``, of IDS with a picture put in at PICTURE_AT."""
    llama = LlamaRuntime(path, cells=64, sequences=1, threads=1, gpu_layers=0)
    steps = [Step(token, i, 0, wanted=True) for i, token in enumerate(IDS)]
    try:
        if embeds is None:
            return llama.decode(steps)[-1]
        llama.decode([step._replace(wanted=False) for step in steps[:PICTURE_AT]])
        llama.decode_embeddings(embeds, position=PICTURE_AT, sequence=0)
        rest = [step._replace(position=step.position + len(embeds)) for step in steps[PICTURE_AT:]]
        return llama.decode(rest)[-1]
    finally:
        llama.close()


def written(checkpoint, folder):
    path = folder / "llm.gguf"
    write_language_model(checkpoint, path, name="tiny", precision="F32")
    return path


@torch.no_grad()
def source_logits(model, embeds=None):
    tokens = model.get_input_embeddings()(torch.tensor([IDS]))
    if embeds is not None:
        # Since transformers 5.5 Gemma's table scales words, and nothing pictures.
        scale = getattr(model.get_input_embeddings(), "embed_scale", 1.0)
        picture = torch.from_numpy(embeds)[None] * scale
        tokens = torch.cat([tokens[:, :PICTURE_AT], picture, tokens[:, PICTURE_AT:]], dim=1)
    return model(inputs_embeds=tokens).logits[0, -1].numpy()


def picture(hidden):
    return np.random.default_rng(5).standard_normal((6, hidden)).astype(np.float32)


def test_logits_are_those_of_transformers(model, checkpoint, tmp_path):
    difference = np.abs(gguf_logits(written(checkpoint, tmp_path)) - source_logits(model))
    assert difference.max() < LIMIT


def test_a_picture_in_place_of_tokens_is_read_as_transformers_reads_it(model, checkpoint, tmp_path):
    embeds = picture(model.config.hidden_size)
    expected = source_logits(model, embeds)
    assert np.abs(gguf_logits(written(checkpoint, tmp_path), embeds) - expected).max() < LIMIT
    assert np.abs(source_logits(model, 2 * embeds) - expected).max() > 5 * LIMIT


@pytest.mark.parametrize("model", ["llama", "qwen2", "phi", "stablelm", "gemma"], indirect=True)
def test_logits_move_with_the_other_rotary_order(model, checkpoint, tmp_path, monkeypatch):
    family = family_of(checkpoint)
    other = replace(family, paired_rotary=not family.paired_rotary)
    monkeypatch.setitem(FAMILIES, checkpoint.text.family, other)
    difference = np.abs(gguf_logits(written(checkpoint, tmp_path)) - source_logits(model))
    assert difference.max() > 10 * LIMIT


@pytest.mark.parametrize("model", ["phi", "stablelm"], indirect=True)
def test_logits_move_when_every_dimension_is_rotated(model, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tinyllava_export.gguf.language_model.rotary_dims", lambda held: held.text.head_dim
    )
    difference = np.abs(gguf_logits(written(checkpoint, tmp_path)) - source_logits(model))
    assert difference.max() > 10 * LIMIT


@pytest.mark.parametrize("model", ["gemma"], indirect=True)
def test_logits_move_when_norms_lack_their_offset(model, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "gemma", replace(FAMILIES["gemma"], norm_offset=0.0))
    difference = np.abs(gguf_logits(written(checkpoint, tmp_path)) - source_logits(model))
    assert difference.max() > 10 * LIMIT


@pytest.mark.parametrize("model", ["phi"], indirect=True)
def test_logits_move_without_the_biases_of_the_head(model, checkpoint, tmp_path):
    places = dict(checkpoint.tensors.places)
    places["text.lm_head.bias"] = Held(torch.zeros(model.config.vocab_size))
    path = written(replace(checkpoint, tensors=Tensors(places)), tmp_path)
    assert np.abs(gguf_logits(path) - source_logits(model)).max() > 10 * LIMIT


@pytest.mark.parametrize("model", ["phi", "stablelm-parallel", "gemma"], indirect=True)
def test_settings_carry_the_family_prefix(model, checkpoint, tmp_path):
    family = family_of(checkpoint)
    fields = GGUFReader(written(checkpoint, tmp_path)).fields
    eps = "layer_norm_rms_epsilon" if family.rms_norm else "layer_norm_epsilon"
    expected = {
        "general.architecture": family.name,
        f"{family.name}.rope.dimension_count": rotary_dims(checkpoint),
        f"{family.name}.attention.{eps}": pytest.approx(checkpoint.text.norm_eps),
        f"{family.name}.attention.key_length": checkpoint.text.head_dim,
    }
    if checkpoint.text.family == "stablelm":
        expected["stablelm.use_parallel_residual"] = True
    assert {name: fields[name].contents() for name in expected} == expected


@pytest.mark.parametrize("model", ["stablelm-tied", "qwen2"], indirect=True)
def test_a_tied_head_is_written_where_the_graph_wants_one(checkpoint):
    targets = [placed.target for placed in place_tensors(checkpoint)]
    assert targets.count("token_embd.weight") == 1
    assert ("output.weight" in targets) == (checkpoint.text.family == "stablelm")


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_rotary_tables_of_old_files_are_left_out(checkpoint):
    places = dict(checkpoint.tensors.places)
    places["text.model.layers.0.self_attn.rotary_emb.inv_freq"] = Held(torch.ones(8))
    targets = place_tensors(replace(checkpoint, tensors=Tensors(places)))
    assert len(targets) == len(place_tensors(checkpoint))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, r"hidden_act is 'gelu', llama.cpp's llama computes silu"),
        ("gemma", {"hidden_act": "gelu"}, r"hidden_act is 'gelu', .* gelu_new or gelu_pytorch_ta"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm is True"),
        ("gemma", {"attention_bias": True}, "attention_bias is True"),
    ],
    indirect=["model"],
)
def test_settings_that_a_graph_does_not_follow_are_refused(checkpoint, changes, message):
    changed = replace(checkpoint, text_config=checkpoint.text_config | changes)
    with pytest.raises(CheckpointError, match=message):
        family_of(changed)


@pytest.mark.parametrize("model", ["phi", "gemma"], indirect=True)
def test_shapes_that_a_graph_does_not_follow_are_refused(checkpoint):
    with pytest.raises(CheckpointError, match=r"'mamba' has no place .* known: llama, qwen2, phi"):
        family_of(replace(checkpoint, text=replace(checkpoint.text, family="mamba")))
    odd = replace(checkpoint, text_config={"partial_rotary_factor": 1 / 16})
    with pytest.raises(CheckpointError, match="must be an even number"):
        rotary_dims(odd)
    if checkpoint.text.family == "gemma":
        untied = replace(checkpoint, text=replace(checkpoint.text, tied_embeddings=False))
        with pytest.raises(CheckpointError, match="tie_word_embeddings is False"):
            family_of(untied)


@pytest.mark.parametrize("model", ["phi"], indirect=True)
def test_a_tensor_of_another_family_is_refused(checkpoint):
    places = dict(checkpoint.tensors.places) | {"text.model.mystery.weight": Held(torch.ones(4))}
    with pytest.raises(CheckpointError, match=r"model\.mystery\.weight has no place in a GGUF of"):
        place_tensors(replace(checkpoint, tensors=Tensors(places)))


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_numbers_beyond_half_precision_are_refused_in_half_precision(checkpoint, tmp_path):
    places = dict(checkpoint.tensors.places)
    places["text.lm_head.weight"] = Held(torch.full((400, 64), 7e4))
    large = replace(checkpoint, tensors=Tensors(places))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has numbers up to 7e\+04"):
        write_language_model(large, tmp_path / "llm.gguf", name="tiny", precision="F16")


def test_families_are_those_of_the_table():
    assert set(families.FAMILIES) == {config.model_type for config in CONFIGS.values()}


STOCK_FAMILIES = ("llama", "qwen2", "phi", "stablelm", "gemma")
# llama.cpp's converter as it is, but for the vocabulary: it knows tokenizers by a hash of the ids
# of one sentence, which a tiny random tokenizer cannot have.
RUN_STOCK_CONVERTER = """
import sys
root, folders = sys.argv[1], sys.argv[2:]
sys.path[:0] = [root, root + "/gguf-py"]
import convert_hf_to_gguf as stock
from conversion import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
for kind in ("Llama", "Qwen2", "Phi", "StableLm", "Gemma"):
    stock.get_model_class(kind + "ForCausalLM").set_vocab = TextModel._set_vocab_gpt2
for folder in folders:
    sys.argv = ["convert", folder, "--outfile", folder + "/stock.gguf", "--outtype", "f32"]
    stock.main()
"""


@pytest.fixture(scope="module")
def stock_folders(tiny_folder, tmp_path_factory):
    """A folder a family with its weights, and ``stock.gguf`` that llama.cpp's converter made."""
    llama_cpp = os.environ.get("TINYLLAVA_LLAMA_CPP")
    if llama_cpp is None:
        pytest.skip(
            "TINYLLAVA_LLAMA_CPP names no llama.cpp source; it is vendor/llama.cpp in the source "
            "package of llama-cpp-python"
        )
    root = tmp_path_factory.mktemp("stock")
    for name in STOCK_FAMILIES:
        random_model(CONFIGS[name]).save_pretrained(root / name)
        shutil.copy(tiny_folder / "tokenizer.json", root / name)
        tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
        (root / name / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    folders = [str(root / name) for name in STOCK_FAMILIES]
    command = [sys.executable, "-c", RUN_STOCK_CONVERTER, llama_cpp, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", STOCK_FAMILIES, indirect=True)
def test_llama_cpps_own_converter_gives_the_same_logits(
    model, checkpoint, stock_folders, request, tmp_path
):
    ours = gguf_logits(written(checkpoint, tmp_path))
    stock = stock_folders / request.node.callspec.params["model"] / "stock.gguf"
    assert np.abs(ours - gguf_logits(Path(stock))).max() == 0
