"""What is wrong with a checkpoint is said in one line; nothing crashes, nothing is run."""

import json
import os
import pickle
import shutil
import struct
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tinyllava_edge.errors import TinyLlavaError
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import CheckpointError
from tinyllava_export.modules import require_tensors

LEGACY, FULL = "legacy-phi-siglip", "factory-phi-siglip-full"
SPLIT, LORA = "factory-qwen2-siglip-split", "factory-tinyllama-siglip-lora"
TRANSFORMERS = "hf-llava-tinyllama-clip"
FUZZ = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def own(golden_case, tmp_path):
    """A copy of a golden checkpoint that a test may spoil."""

    def copy(name):
        return shutil.copytree(golden_case(name).checkpoint, tmp_path / name)

    return copy


def edit(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def read_everything(folder):
    checkpoint = open_checkpoint(folder)
    for name in checkpoint.tensors.names():
        checkpoint.tensors.read(name)


def refused(folder, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        read_everything(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_named_by_their_tensor(own, number):
    folder = own(FULL)
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.model.layers.1.mlp.fc1.weight"][3, 5] = number
    save_file(tensors, folder / "model.safetensors")
    refused(folder, r"text\.model\.layers\.1\.mlp\.fc1\.weight: 1 of 8192 numbers are NaN")


def test_a_truncated_shard_is_named(own):
    folder = own(LEGACY)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(folder, r"model-00002-of-00002\.safetensors: damaged")


def test_a_missing_shard_is_named(own):
    folder = own(LEGACY)
    (folder / "model-00001-of-00002.safetensors").unlink()
    refused(folder, r"shard model-00001-of-00002\.safetensors is missing")


@pytest.mark.parametrize("keep", [0, 3, 1000, -30])
def test_a_truncated_pytorch_file_is_named(own, keep):
    folder = own(SPLIT)
    weights = folder / "language_model" / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:keep])
    refused(folder, r"language_model/pytorch_model\.bin: damaged")


class RunsACommand:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not(own, tmp_path):
    folder = own(SPLIT)
    mark = tmp_path / "mark"
    torch.save({"_connector.0.weight": RunsACommand(f"touch {mark}")}, tmp_path / "evil.bin")
    (tmp_path / "evil.bin").replace(folder / "connector" / "pytorch_model.bin")
    refused(folder, r"connector/pytorch_model\.bin: holds more than tensors")
    assert not mark.exists()


def test_a_bare_pickle_is_refused_and_does_not_run(own, tmp_path):
    folder = own(SPLIT)
    mark = tmp_path / "mark"
    path = folder / "vision_tower" / "pytorch_model.bin"
    path.write_bytes(pickle.dumps(RunsACommand(f"touch {mark}")))
    refused(folder, r"vision_tower/pytorch_model\.bin: damaged, or written by PyTorch before 1\.6")
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": "text"}, {3: torch.zeros(2)}])
def test_a_pytorch_file_of_something_else_is_refused(own, content):
    folder = own(SPLIT)
    torch.save(content, folder / "connector" / "pytorch_model.bin")
    refused(folder, r"connector/pytorch_model\.bin: .* save the (model again|state_dict alone)")


def test_a_zip_that_is_no_checkpoint_is_refused(own):
    folder = own(SPLIT)
    with zipfile.ZipFile(folder / "connector" / "pytorch_model.bin", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(folder, r"connector/pytorch_model\.bin: damaged")


def test_a_tensor_of_another_shape_is_named(own):
    folder = own(TRANSFORMERS)
    tensors = load_file(folder / "model.safetensors")
    tensors["multi_modal_projector.linear_2.weight"] = torch.zeros(64, 63)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"connector\.2\.weight has shape \[64, 63\]"):
        require_tensors(open_checkpoint(folder))


@pytest.mark.parametrize("name", [LEGACY, FULL, SPLIT, LORA])
def test_a_foreign_tensor_is_named(own, name):
    folder = own(name)
    if name == FULL:
        path = folder / "model.safetensors"
        save_file({**load_file(path), "audio_tower.weight": torch.zeros(2)}, path)
    elif name == LEGACY:
        path = folder / "model-00002-of-00002.safetensors"
        save_file({**load_file(path), "audio_tower.weight": torch.zeros(2)}, path)
    else:
        path = folder / "connector" / "pytorch_model.bin"
        torch.save({**torch.load(path), "audio_tower.weight": torch.zeros(2)}, path)
    refused(folder, r"audio_tower\.weight: not part of a")


@pytest.mark.parametrize(
    ("name", "file", "changes", "words"),
    [
        (FULL, "config.json", {"model_type": "paligemma"}, "'paligemma' is not supported"),
        (FULL, "config.json", {"model_type": ["tinyllava"]}, "is not supported; supported: llava"),
        (FULL, "config.json", {"connector_type": "abstractor"}, "connector 'abstractor' is not"),
        (FULL, "config.json", {"connector_type": "mlp0x_gelu"}, "connector 'mlp0x_gelu' is not"),
        (FULL, "config.json", {"connector_type": None}, "connector None is not"),
        (FULL, "config.json", {"image_aspect_ratio": "anyres"}, "'anyres' is not supported"),
        (FULL, "config.json", {"vision_feature_select_strategy": "all"}, "'all' is not known"),
        (FULL, "config.json", {"vision_feature_layer": [-2, -5]}, "it must be one number"),
        (FULL, "config.json", {"text_config": None}, "has no text_config"),
        (FULL, "config.json", {"text_config": {"model_type": "openelm"}}, "'openelm' is not"),
        (FULL, "config.json", {"vision_config": {"model_type": "swin"}}, "'swin' is not supported"),
        (LEGACY, "config.json", {"mm_vision_tower": "my/tower"}, "vision tower 'my/tower' is not"),
        (LEGACY, "config.json", {"mm_projector_type": "resampler"}, "of a legacy checkpoint"),
        (LEGACY, "config.json", {"hidden_size": "wide"}, "hidden_size of the phi is 'wide'"),
        (LEGACY, "config.json", {"hidden_act": "gelo"}, "'gelo'; it must name an activation"),
        (LEGACY, "config.json", {"rope_theta": -1}, "rope_theta is -1"),
        (LORA, "adapter_config.json", {"peft_type": "LOHA"}, "'LOHA' is not supported"),
        (LORA, "adapter_config.json", {"use_dora": True}, "use_dora is set"),
        (LORA, "adapter_config.json", {"r": 0}, "r is 0"),
        (LORA, "adapter_config.json", {"lora_alpha": "x"}, "lora_alpha 'x'"),
        (TRANSFORMERS, "preprocessor_config.json", {"size": {"height": 9}}, "the tower takes 336"),
        (TRANSFORMERS, "preprocessor_config.json", {"image_std": [0, 1, 1]}, "above zero"),
        (TRANSFORMERS, "preprocessor_config.json", {"resample": 5}, "resample 5 is not supported"),
        (TRANSFORMERS, "preprocessor_config.json", {"resample": []}, r"resample \[\] is not"),
        (TRANSFORMERS, "preprocessor_config.json", {"rescale_factor": 1}, "only 1/255"),
        (TRANSFORMERS, "config.json", {"projector_hidden_act": "gelo"}, "must name an activation"),
        (SPLIT, "tokenizer_config.json", {"tokenizer_class": "Odd"}, "tokenizer_class 'Odd'"),
    ],
)
def test_what_is_not_supported_or_not_valid_is_named(own, name, file, changes, words):
    folder = own(name)
    edit(folder / file, **changes)
    refused(folder, words)


def test_an_adapter_of_another_model_is_named(own):
    folder = own(LORA)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.language_model.model.layers.0.mlp.up_proj.lora_B.weight"
    save_file({**tensors, name: torch.zeros(130, 8)}, path)
    refused(folder, r"layers\.0\.mlp\.up_proj: shapes \[130, 8\] and \[8, 64\] do not make")
    tensors.pop(name)
    save_file(tensors, path)
    refused(folder, r"lora_A or lora_B is missing")
    save_file({"base_model.model.language_model.model.odd.lora_A.weight": torch.zeros(8, 4)}, path)
    refused(folder, r"the model has no such layer")


@pytest.mark.parametrize("name", [SPLIT, LORA])
def test_a_missing_tokenizer_is_said(own, name):
    folder = own(name)
    for file in ("vocab.json", "tokenizer.model"):
        (folder / file).unlink(missing_ok=True)
    refused(folder, "no tokenizer")


def survives(folder):
    """Opened and read, or refused in one line."""
    try:
        read_everything(folder)
    except TinyLlavaError as error:
        assert "\n" not in str(error)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5000) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
JSON_FILES = (
    (LEGACY, "config.json"),
    (LEGACY, "added_tokens.json"),
    (LEGACY, "model.safetensors.index.json"),
    (FULL, "config.json"),
    (FULL, "tokenizer_config.json"),
    (LORA, "adapter_config.json"),
    (SPLIT, "config.json"),
    (SPLIT, "vocab.json"),
    (TRANSFORMERS, "config.json"),
    (TRANSFORMERS, "preprocessor_config.json"),
    (TRANSFORMERS, "tokenizer.json"),
    (TRANSFORMERS, "generation_config.json"),
)


@FUZZ
@given(data=st.data(), target=st.sampled_from(JSON_FILES))
def test_any_value_in_any_setting_opens_or_is_refused(golden_case, tmp_path_factory, data, target):
    name, file = target
    folder = tmp_path_factory.mktemp("fuzz") / name
    shutil.copytree(golden_case(name).checkpoint, folder)
    content = json.loads((folder / file).read_text())
    level = content
    while True:
        key = data.draw(st.sampled_from(sorted(level)))
        if not isinstance(level[key], dict) or not level[key] or data.draw(st.booleans()):
            break
        level = level[key]
    level[key] = data.draw(JSON_VALUES)
    (folder / file).write_text(json.dumps(content))
    survives(folder)
    shutil.rmtree(folder)


BINARY_FILES = (
    (FULL, "model.safetensors"),
    (FULL, "merges.txt"),
    (LORA, "adapter_model.safetensors"),
    (LORA, "tokenizer.model"),
    (SPLIT, "connector/pytorch_model.bin"),
    (SPLIT, "vision_tower/pytorch_model.bin"),
)


@FUZZ
@given(data=st.data(), target=st.sampled_from(BINARY_FILES))
def test_any_bytes_in_a_header_open_or_are_refused(golden_case, tmp_path_factory, data, target):
    name, file = target
    folder = tmp_path_factory.mktemp("fuzz") / name
    shutil.copytree(golden_case(name).checkpoint, folder)
    content = bytearray((folder / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 6000) - 1))
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(len(content) // 2, len(content)))
    (folder / file).write_bytes(bytes(content[:end]))
    survives(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("length", [0, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_of_a_foolish_length_is_refused(own, length):
    folder = own(FULL)
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(folder, r"model\.safetensors: damaged")
