import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.errors import CheckpointError, ExportError
from tinyllava_export.fidelity import row_cosines
from tinyllava_export.modules import build_vision_path, expected_vision_tensors
from tinyllava_export.vision import write_vision
from tinyllava_export.vision.int8 import quantize_channels

FULL_CASES = [("siglip", -1), ("siglip", -2), ("clip", -2)]
RESAMPLER = {"queries": 6, "layers": 2}
QFORMER = {"queries": 6, "layers": 2, "heads": 4, "hidden": 32, "intermediate": 64}
# Every tower and every connector at least once.
PARTS = {
    "siglip-qformer": ("siglip", "qformer", {"numbers": QFORMER}),
    "clip-resampler": ("clip", "resampler", {"numbers": RESAMPLER}),
    "clip-legacy-resampler": (
        "clip",
        "resampler",
        {"numbers": RESAMPLER, "hints": {"connector.queries": (6, 24)}},
    ),
    "dinov2-linear": ("dinov2", "linear", {}),
    "mof-mof_mlp": ("mof", "mof_mlp", {}),
    "siglip-identity": ("siglip", "identity", {"hidden": 64}),
    "clip-mlp3x": ("clip", "mlp3x_gelu", {}),
}


@pytest.fixture(scope="module", params=FULL_CASES, ids=lambda case: f"{case[0]}{case[1]}")
def whole(request, write_checkpoint, tmp_path_factory):
    """The transformers model and our path through the same checkpoint."""
    family, layer = request.param
    folder = tmp_path_factory.mktemp("tower")
    model = write_checkpoint(folder, family=family, feature_layer=layer)
    return model, build_vision_path(open_checkpoint(folder))


@pytest.fixture(scope="module", params=PARTS.values(), ids=PARTS)
def parts(request, vision_checkpoint):
    tower, connector, options = request.param
    return vision_checkpoint(tower, connector, **options)


@pytest.fixture(scope="module")
def siglip(vision_checkpoint):
    return vision_checkpoint("siglip", "mlp2x_gelu", dropped_tokens=0)


def pictures(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def expected_features(model, pixels):
    """What ``LlavaForConditionalGeneration`` itself feeds to its language model."""
    features = model.get_image_features(pixel_values=pixels)
    features = getattr(features, "pooler_output", features)
    return features if torch.is_tensor(features) else torch.stack(list(features))


@torch.no_grad()
def torch_features(checkpoint, pixels):
    return build_vision_path(checkpoint)(pixels).numpy()


def run(file, pixels):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["image_embeds"], {"pixel_values": pixels.numpy()})[0]


def operators(file):
    return {node.op_type for node in onnx.load(str(file)).graph.node}


def test_vision_path_gives_the_features_of_the_whole_model(whole):
    model, path = whole
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


def test_graphs_of_every_tower_and_connector_give_the_features_of_torch(parts, tmp_path):
    file = tmp_path / "v.onnx"
    pixels = pictures(3)
    expected = torch_features(parts, pixels)
    for bits, cosine in ((32, 0.999999), (16, 0.9999), (8, 0.98)):
        write_vision(parts, file, bits=bits)
        features = run(file, pixels)
        assert features.dtype == np.float32
        assert features.shape == expected.shape
        assert row_cosines(features, expected).min() > cosine
        assert ("MatMulInteger" in operators(file)) == (bits == 8)
        if bits == 32:
            assert np.abs(features - expected).max() < 1e-4


def test_graph_takes_any_number_of_pictures(siglip, tmp_path):
    file = tmp_path / "v.onnx"
    assert write_vision(siglip, file, bits=32) == "fp32"
    for count in (1, 2, 5):
        features = run(file, pictures(count))
        assert features.shape == (count, 16, 48)
        assert np.abs(features - torch_features(siglip, pictures(count))).max() < 1e-4


@pytest.mark.parametrize(("bits", "name", "share"), [(16, "fp16", 0.56), (8, "int8", 0.45)])
def test_small_graph_is_a_valid_file_of_the_expected_size(siglip, tmp_path, bits, name, share):
    file = tmp_path / "v.onnx"
    assert write_vision(siglip, file, bits=bits) == name
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)
    full = sum(4 * np.prod(shape) for shape in expected_vision_tensors(siglip).values())
    graph = 40_000
    assert file.stat().st_size < share * full + graph


def test_graph_tells_nothing_of_this_machine_and_repeats(siglip, tmp_path):
    files = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for file in files:
        write_vision(siglip, file, bits=32)
    data = files[0].read_bytes()
    assert b"site-packages" not in data
    assert b".py" not in data
    model = onnx.load_from_string(data)
    assert [node.name for node in model.graph.input] == ["pixel_values"]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert digests[0] == digests[1]


def test_write_vision_lists_the_known_bits_when_it_does_not_know(siglip, tmp_path):
    with pytest.raises(ExportError, match="--vision-bits 4 is not known; known: 8, 16, 32"):
        write_vision(siglip, tmp_path / "v.onnx", bits=4)
    assert not (tmp_path / "v.onnx").exists()


def test_write_vision_names_a_missing_tensor(siglip, tmp_path):
    places = dict(siglip.tensors.places)
    del places["vision.encoder.layers.0.mlp.fc1.weight"]
    broken = type(siglip)(**{**siglip.__dict__, "tensors": Tensors(places)})
    with pytest.raises(CheckpointError, match=r"layers.0.mlp.fc1.weight is missing"):
        write_vision(broken, tmp_path / "v.onnx", bits=32)


def test_channels_are_quantized_within_half_a_step_and_seven_bits():
    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(40, 7)).astype(np.float32) * np.arange(7, dtype=np.float32)
    numbers, scale = quantize_channels(matrix)
    assert numbers.dtype == np.int8
    assert np.abs(numbers).max() == 64
    assert np.isfinite(scale).all()
    assert (np.abs(numbers * scale - matrix) <= 0.5001 * scale).all()
    assert not numbers[:, 0].any()
