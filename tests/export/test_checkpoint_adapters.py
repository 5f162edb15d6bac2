import json
import math

import pytest
import torch
from safetensors.torch import save_file

from tinyllava_export.checkpoints.adapters import merge_adapter, read_adapter
from tinyllava_export.checkpoints.dequantized import dequantize
from tinyllava_export.checkpoints.factory import neutral_name
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.checkpoints.weight_files import index_file, index_files
from tinyllava_export.errors import CheckpointError

Q = "language_model.model.layers.0.self_attn.q_proj"
K = "language_model.model.layers.0.self_attn.k_proj"
TEXT_Q = "text.model.layers.0.self_attn.q_proj.weight"
TEXT_K = "text.model.layers.0.self_attn.k_proj.weight"


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(3)
    weights = {f"{Q}.weight": torch.randn(6, 4).half(), f"{K}.weight": torch.randn(6, 4).half()}
    save_file(weights, tmp_path / "model.safetensors")
    return weights


@pytest.fixture
def halves():
    torch.manual_seed(4)
    return torch.randn(2, 4), torch.randn(6, 2)


def merged(folder, tensors, **settings):
    save_file(tensors, folder / "adapter_model.safetensors")
    content = {"peft_type": "LORA", "r": 2, "lora_alpha": 16, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    places = index_files([folder / "model.safetensors"], neutral_name)
    merge_adapter(places, read_adapter(folder), neutral_name)
    return Tensors(places)


def as_saved(halves, module=Q):
    down, up = halves
    prefix = f"base_model.model.{module}"
    return {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}


def test_adapter_is_added_in_float32_and_only_where_it_belongs(tmp_path, base, halves):
    tensors = merged(tmp_path, as_saved(halves))
    down, up = halves
    expected = base[f"{Q}.weight"].float() + up @ down * 8
    assert torch.allclose(tensors.read(TEXT_Q), expected, atol=1e-6)
    assert tensors.dtype(TEXT_Q) == "F32"
    assert tensors.shape(TEXT_Q) == (6, 4)
    assert torch.equal(tensors.read(TEXT_K), base[f"{K}.weight"])


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"use_rslora": True}, 16 / math.sqrt(2)),
        ({"alpha_pattern": {"q_proj": 4}}, 2),
        ({"alpha_pattern": {"proj": 4}}, 8),
        ({"rank_pattern": {Q: 4}}, 4),
    ],
)
def test_adapter_is_scaled_as_its_settings_say(tmp_path, base, halves, settings, scale):
    tensors = merged(tmp_path, as_saved(halves), **settings)
    change = tensors.read(TEXT_Q) - base[f"{Q}.weight"].float()
    assert torch.allclose(change, halves[1] @ halves[0] * scale, atol=1e-5)


def test_adapter_is_transposed_where_layers_are(tmp_path, base):
    down, up = torch.randn(2, 6), torch.randn(4, 2)
    tensors = merged(tmp_path, as_saved((down, up)), fan_in_fan_out=True)
    change = tensors.read(TEXT_Q) - base[f"{Q}.weight"].float()
    assert torch.allclose(change, (up @ down * 8).T, atol=1e-5)


def test_modules_saved_whole_replace_those_of_the_base(tmp_path, base, halves):
    whole = torch.randn(6, 4)
    name = f"base_model.model.{K}.modules_to_save.weight"
    tensors = merged(tmp_path, {**as_saved(halves), name: whole})
    assert torch.equal(tensors.read(TEXT_K), whole)


def test_adapters_of_another_kind_are_refused(tmp_path, base, halves):
    prefix = "base_model.model.language_model.model.embed_tokens"
    with pytest.raises(CheckpointError, match="of a kind that is not supported"):
        merged(tmp_path, {f"{prefix}.lora_embedding_A": halves[0]})


def test_int8_rows_are_scaled(tmp_path):
    weight = torch.randint(-127, 128, (5, 3), dtype=torch.int8)
    scales = torch.rand(5) + 0.1
    format_mark = torch.zeros((), dtype=torch.uint8)
    stored = {"a.weight": weight, "a.SCB": scales, "a.weight_format": format_mark}
    save_file(stored, tmp_path / "model.safetensors")
    places = index_file(tmp_path / "model.safetensors")
    dequantize(places)
    assert set(places) == {"a.weight"}
    expected = weight.float() * scales[:, None] / 127
    assert torch.allclose(Tensors(places).read("a.weight"), expected)


def test_int8_without_scales_is_refused(tmp_path):
    save_file({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.weight is quantized to I8 and its scales"):
        dequantize(index_file(tmp_path / "model.safetensors"))


def four_bits(folder, *, nested):
    """15 numbers in blocks of 4, packed as bitsandbytes does, and what they stand for."""
    torch.manual_seed(5)
    table = torch.linspace(-1, 1, 16)
    indices = torch.randint(0, 16, (16,), dtype=torch.uint8)
    packed = (indices[0::2] << 4 | indices[1::2])[:, None].contiguous()
    state = {"blocksize": 4, "shape": [5, 3], "quant_type": "nf4", "dtype": "float16"}
    parts = {"a.weight": packed, "a.weight.quant_map": table}
    if nested:
        scales_table = torch.linspace(0, 1, 256)
        places = torch.tensor([10, 200, 30, 77], dtype=torch.uint8)
        outer = torch.tensor([2.0, 3.0])
        absmax = scales_table[places.long()] * outer.repeat_interleave(2) + 0.25
        parts["a.weight.absmax"] = places
        parts["a.weight.nested_absmax"] = outer
        parts["a.weight.nested_quant_map"] = scales_table
        state |= {"nested_blocksize": 2, "nested_offset": 0.25}
    else:
        absmax = torch.tensor([1.0, 0.5, 2.0, 3.0])
        parts["a.weight.absmax"] = absmax
    raw = json.dumps(state).encode()
    name = "a.weight.quant_state.bitsandbytes__nf4"
    parts[name] = torch.tensor(list(raw), dtype=torch.uint8)
    save_file(parts, folder / "model.safetensors")
    return (table[indices.long()] * absmax.repeat_interleave(4))[:15].reshape(5, 3)


@pytest.mark.parametrize("nested", [False, True])
def test_four_bit_weights_are_looked_up_and_scaled(tmp_path, nested):
    expected = four_bits(tmp_path, nested=nested)
    places = index_file(tmp_path / "model.safetensors")
    dequantize(places)
    tensors = Tensors(places)
    assert list(tensors.names()) == ["a.weight"]
    assert tensors.shape("a.weight") == (5, 3)
    assert torch.allclose(tensors.read("a.weight"), expected)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_four_bit_weights_are_those_of_bitsandbytes(tmp_path, kind, nested):
    functional = pytest.importorskip("bitsandbytes.functional")
    weight, state = functional.quantize_4bit(
        torch.randn(12, 64), blocksize=64, quant_type=kind, compress_statistics=nested
    )
    parts = {f"a.weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    save_file({"a.weight": weight, **parts}, tmp_path / "model.safetensors")
    places = index_file(tmp_path / "model.safetensors")
    dequantize(places)
    assert torch.equal(Tensors(places).read("a.weight"), functional.dequantize_4bit(weight, state))


def test_a_damaged_four_bit_state_is_refused(tmp_path):
    four_bits(tmp_path, nested=False)
    places = index_file(tmp_path / "model.safetensors")
    del places["a.weight.absmax"]
    with pytest.raises(CheckpointError, match=r"parts of its 4-bit state are missing"):
        dequantize(places)
