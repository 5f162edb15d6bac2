import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.fidelity import row_cosines
from tinyllava_export.modules import build_vision_path, expected_vision_tensors
from tinyllava_export.vision import write_vision

CASES = [("siglip", -1), ("siglip", -2), ("clip", -2)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}{case[1]}")
def tower(request, write_checkpoint, tmp_path_factory):
    """The transformers model and our path through the same checkpoint."""
    family, layer = request.param
    folder = tmp_path_factory.mktemp("tower")
    model = write_checkpoint(folder, family=family, feature_layer=layer)
    return model, build_vision_path(open_checkpoint(folder))


@pytest.fixture(scope="module")
def siglip_path(tiny_folder):
    return build_vision_path(open_checkpoint(tiny_folder))


def pictures(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def expected_features(model, pixels):
    """What ``LlavaForConditionalGeneration`` itself feeds to its language model."""
    features = model.get_image_features(pixel_values=pixels)
    features = getattr(features, "pooler_output", features)
    return features if torch.is_tensor(features) else torch.stack(list(features))


def run(file, pixels):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["image_embeds"], {"pixel_values": pixels.numpy()})[0]


def test_vision_path_gives_the_features_of_the_whole_model(tower):
    model, path = tower
    pixels = pictures(2)
    with torch.no_grad():
        features = path(pixels)
    expected = expected_features(model, pixels)
    assert features.shape == expected.shape == (2, 16, 256)
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()


def test_vision_path_holds_no_layer_beyond_the_features(write_checkpoint, tmp_path):
    write_checkpoint(tmp_path, feature_layer=-2)
    names = expected_vision_tensors(open_checkpoint(tmp_path))
    assert any(".layers.0." in name for name in names)
    assert not any(".layers.1." in name or "head." in name for name in names)


def test_float_graph_gives_the_features_of_torch_for_any_number_of_pictures(tower, tmp_path):
    _, path = tower
    assert write_vision(path, tmp_path / "v.onnx", size=32, bits=32, scratch=tmp_path) == "fp32"
    for count in (1, 2, 5):
        pixels = pictures(count)
        with torch.no_grad():
            expected = path(pixels).numpy()
        features = run(tmp_path / "v.onnx", pixels)
        assert features.shape == expected.shape
        assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("bits", "name", "cosine"), [(16, "fp16", 0.9999), (8, "int8", 0.95)])
def test_small_graph_stays_near_torch_and_is_smaller(siglip_path, tmp_path, bits, name, cosine):
    file = tmp_path / "v.onnx"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert write_vision(siglip_path, file, size=32, bits=bits, scratch=scratch) == name
    pixels = pictures(3)
    with torch.no_grad():
        expected = siglip_path(pixels).numpy()
    cosines = row_cosines(run(file, pixels), expected)
    assert cosines.min() > cosine
    full = sum(4 * tensor.numel() for tensor in siglip_path.state_dict().values())
    assert file.stat().st_size < 0.6 * full
    operators = {node.op_type for node in onnx.load(str(file)).graph.node}
    assert ("DynamicQuantizeLinear" in operators) == (bits == 8)


def test_graph_tells_nothing_of_this_machine(siglip_path, tmp_path):
    write_vision(siglip_path, tmp_path / "v.onnx", size=32, bits=32, scratch=tmp_path)
    data = (tmp_path / "v.onnx").read_bytes()
    assert b"site-packages" not in data
    assert b".py" not in data
    model = onnx.load_from_string(data)
    assert [node.name for node in model.graph.input] == ["pixel_values"]


def test_write_vision_lists_the_known_bits_when_it_does_not_know(siglip_path, tmp_path):
    with pytest.raises(ExportError, match="--vision-bits 4 is not known; known: 8, 16, 32"):
        write_vision(siglip_path, tmp_path / "v.onnx", size=32, bits=4, scratch=tmp_path)
    assert not (tmp_path / "v.onnx").exists()
