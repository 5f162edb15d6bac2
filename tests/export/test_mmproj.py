import hashlib

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from PIL import Image

from tinyllava_edge.preprocess import pixels
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.fidelity import row_cosines
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.mmproj import mmproj_caveat, mmproj_obstacle, write_mmproj
from tinyllava_export.mmproj_features import mmproj_features
from tinyllava_export.modules import build_vision_path
from tinyllava_export.source import Source


@pytest.fixture(scope="module", params=[-1, -2])
def siglip(request, write_checkpoint, tmp_path_factory):
    """A SigLIP checkpoint, its ``llm.gguf`` and the folder of both."""
    folder = tmp_path_factory.mktemp("mmproj")
    write_checkpoint(folder, feature_layer=request.param)
    checkpoint = open_checkpoint(folder)
    write_language_model(checkpoint, folder / "llm.gguf", name="tiny", precision="F32")
    return checkpoint, folder


def square():
    """A picture that needs no resizing."""
    return Image.fromarray(np.random.default_rng(4).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(("bits", "closeness"), [(32, 0.99999), (8, 0.99998)])
def test_llama_cpp_computes_the_features_of_the_source(siglip, tmp_path, bits, closeness):
    checkpoint, folder = siglip
    file = tmp_path / "mmproj.gguf"
    assert mmproj_obstacle(checkpoint) is None
    write_mmproj(checkpoint, file, name="tiny", bits=bits)
    features = mmproj_features(folder / "llm.gguf", file, square(), hidden=256)
    expected = Source(checkpoint).see(pixels(square(), checkpoint.semantics.image))
    assert features.shape == expected.shape
    assert row_cosines(features, expected).min() > closeness


def test_features_of_another_layer_are_told_apart(siglip):
    checkpoint, _ = siglip
    other = -3 - checkpoint.semantics.tower.feature_layer
    tower = checkpoint.semantics.tower.model_copy(update={"feature_layer": other})
    semantics = checkpoint.semantics.model_copy(update={"tower": tower})
    changed = type(checkpoint)(**{**checkpoint.__dict__, "semantics": semantics})
    seen = pixels(square(), checkpoint.semantics.image)
    assert row_cosines(Source(checkpoint).see(seen), Source(changed).see(seen)).min() < 0.99


def test_mmproj_has_one_layer_more_than_the_features_and_it_is_zero(siglip, tmp_path):
    checkpoint, _ = siglip
    file = tmp_path / "mmproj.gguf"
    write_mmproj(checkpoint, file, name="tiny", bits=16)
    reader = GGUFReader(file)
    used = 2 if checkpoint.semantics.tower.feature_layer == -1 else 1
    assert reader.get_field("clip.vision.block_count").contents() == used + 1
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    closing = [tensor for name, tensor in tensors.items() if name.startswith(f"v.blk.{used}.")]
    assert len(closing) == 16
    assert not any(tensor.data.any() for tensor in closing)
    assert tensors["v.blk.0.ffn_up.weight"].data.dtype == np.float16
    assert tensors["v.position_embd.weight"].data.dtype == np.float32
    assert "v.post_ln.weight" not in tensors


def test_square_feed_forward_networks_are_not_turned_round(siglip, vision_checkpoint, tmp_path):
    """As in the tower of the golden legacy case, whose two matrices have the same shape."""
    checkpoint = vision_checkpoint(
        "siglip", "mlp2x_gelu", dropped_tokens=0, settings={"intermediate_size": 64}, hidden=256
    )
    file = tmp_path / "mmproj.gguf"
    write_mmproj(checkpoint, file, name="tiny", bits=32)
    features = mmproj_features(siglip[1] / "llm.gguf", file, square(), hidden=256)
    seen = torch.from_numpy(pixels(square(), checkpoint.semantics.image))
    with torch.no_grad():
        expected = build_vision_path(checkpoint)(seen[None])[0].numpy()
    assert row_cosines(features, expected).min() > 0.9999


def test_mmproj_repeats(siglip, tmp_path):
    checkpoint, _ = siglip
    digests = set()
    for name in ("a", "b"):
        write_mmproj(checkpoint, tmp_path / name, name="tiny", bits=16)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("tower", "connector", "options", "reason"),
    [
        ("clip", "mlp2x_gelu", {}, "class token last"),
        ("dinov2", "linear", {}, "no dinov2 tower"),
        ("mof", "mof_mlp", {}, "no mof tower"),
        ("siglip", "linear", {"dropped_tokens": 0}, "no linear connector"),
        ("siglip", "mlp2x_gelu", {"dropped_tokens": 1}, "drops the first 1"),
    ],
)
def test_mmproj_is_left_out_with_the_reason(vision_checkpoint, tower, connector, options, reason):
    assert reason in mmproj_obstacle(vision_checkpoint(tower, connector, **options))


@pytest.mark.parametrize(("aspect", "verb"), [("squash", "squashes"), ("crop", "crops")])
def test_mmproj_is_left_out_for_pictures_that_are_not_padded(vision_checkpoint, aspect, verb):
    checkpoint = vision_checkpoint("siglip", "mlp2x_gelu", dropped_tokens=0)
    image = checkpoint.semantics.image.model_copy(update={"aspect": aspect})
    semantics = checkpoint.semantics.model_copy(update={"image": image})
    changed = type(checkpoint)(**{**checkpoint.__dict__, "semantics": semantics})
    assert mmproj_obstacle(changed).endswith(f"this model {verb} it")


def test_mmproj_caveat_names_both_colours(siglip):
    assert "(122, 116, 104)" in mmproj_caveat(siglip[0])
    assert "(127, 127, 127)" in mmproj_caveat(siglip[0])


def test_mmproj_features_names_the_file_that_llama_cpp_refuses(siglip, tmp_path):
    _, folder = siglip
    (tmp_path / "mmproj.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ExportError, match=r"mmproj.gguf: llama.cpp cannot load it"):
        mmproj_features(folder / "llm.gguf", tmp_path / "mmproj.gguf", square(), hidden=256)
    with pytest.raises(ExportError, match=r"nothing.gguf: llama.cpp cannot load it"):
        mmproj_features(folder / "nothing.gguf", tmp_path / "mmproj.gguf", square(), hidden=256)
