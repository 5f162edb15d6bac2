import math

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
from tinyllava_export.vision.int8 import quantize_channels, quantize_products
from tinyllava_export.vision.skeleton import trace_vision
from tinyllava_export.vision.streamed import write_streamed

FULL_CASES = [("siglip", -1), ("siglip", -2), ("clip", -2)]
RESAMPLER = {"queries": 6, "layers": 2}
QFORMER = {"queries": 6, "layers": 2, "heads": 4, "hidden": 32, "intermediate": 64}
GRAPH_BYTES = 60_000
"""What a file holds beside weights: nodes, and names for each of them."""
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
    return vision_checkpoint(tower, connector, feature_layer=1, **options)


@pytest.fixture(scope="module")
def siglip(vision_checkpoint):
    return vision_checkpoint("siglip", "mlp2x_gelu", dropped_tokens=0)


@pytest.fixture(scope="module")
def float_file(siglip, tmp_path_factory):
    file = tmp_path_factory.mktemp("graph") / "v.onnx"
    assert write_vision(siglip, file, bits=32) == "fp32"
    return file


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
    """In float32 and int8, from one trace, which is what takes the time."""
    expected = torch_features(parts, pictures(3))
    skeleton = trace_vision(parts, torch.float32)
    write_streamed(skeleton.model, list(skeleton.weights.values()), tmp_path / "full.onnx")
    features = run(tmp_path / "full.onnx", pictures(3))
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 1e-4
    initializers = quantize_products(skeleton)
    write_streamed(skeleton.model, initializers, tmp_path / "int8.onnx")
    assert row_cosines(run(tmp_path / "int8.onnx", pictures(3)), expected).min() > 0.98
    model = onnx.load(str(tmp_path / "int8.onnx"))
    onnx.checker.check_model(model, full_check=True)
    nodes = model.graph.node
    products = [node for node in nodes if node.op_type == "MatMul"]
    assert any(node.op_type == "MatMulInteger" for node in nodes)
    # What stays float multiplies two activations, as attention does.
    made = {output for node in nodes for output in node.output}
    assert all(set(node.input) <= made for node in products)


@pytest.mark.parametrize("case", ["clip-resampler", "mof-mof_mlp"])
def test_half_precision_graph_stays_near_torch(vision_checkpoint, tmp_path, case):
    tower, connector, options = PARTS[case]
    checkpoint = vision_checkpoint(tower, connector, feature_layer=1, **options)
    assert write_vision(checkpoint, tmp_path / "v.onnx", bits=16) == "fp16"
    features = run(tmp_path / "v.onnx", pictures(2))
    assert features.dtype == np.float32
    assert row_cosines(features, torch_features(checkpoint, pictures(2))).min() > 0.9999
    full = sum(4 * math.prod(shape) for shape in expected_vision_tensors(checkpoint).values())
    assert (tmp_path / "v.onnx").stat().st_size < 0.5 * full + GRAPH_BYTES


def test_graph_takes_any_number_of_pictures(siglip, float_file):
    for count in (1, 2, 5):
        features = run(float_file, pictures(count))
        assert features.shape == (count, 16, 48)
        assert np.abs(features - torch_features(siglip, pictures(count))).max() < 1e-4


def test_graph_tells_nothing_of_this_machine_and_repeats(siglip, float_file, tmp_path):
    data = float_file.read_bytes()
    assert b"site-packages" not in data
    assert b".py" not in data
    model = onnx.load_from_string(data)
    assert [node.name for node in model.graph.input] == ["pixel_values"]
    write_vision(siglip, tmp_path / "again.onnx", bits=32)
    assert (tmp_path / "again.onnx").read_bytes() == data


def test_write_vision_lists_the_known_bits_when_it_does_not_know(siglip, tmp_path):
    with pytest.raises(ExportError, match="--vision-bits 4 is not known; known: 8, 16, 32"):
        write_vision(siglip, tmp_path / "v.onnx", bits=4)
    assert not (tmp_path / "v.onnx").exists()


def test_missing_weights_are_named(siglip):
    places = dict(siglip.tensors.places)
    del places["vision.encoder.layers.0.mlp.fc1.weight"]
    broken = type(siglip)(**{**siglip.__dict__, "tensors": Tensors(places)})
    with pytest.raises(CheckpointError, match=r"layers.0.mlp.fc1.weight is missing"):
        build_vision_path(broken)


def test_channels_are_quantized_within_half_a_step_and_seven_bits():
    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(40, 7)).astype(np.float32) * np.arange(7, dtype=np.float32)
    numbers, scale = quantize_channels(matrix)
    assert numbers.dtype == np.int8
    assert np.abs(numbers).max() == 64
    assert np.isfinite(scale).all()
    assert (np.abs(numbers * scale - matrix) <= 0.5001 * scale).all()
    assert not numbers[:, 0].any()
