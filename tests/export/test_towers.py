import pytest
import torch
from transformers import AutoConfig, CLIPVisionModel, Dinov2Model, SiglipVisionModel

from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.errors import CheckpointError
from tinyllava_export.modules import build_vision_path, expected_vision_tensors, used_layers
from tinyllava_export.modules.positions import fit_positions

CLASSES = {"siglip": SiglipVisionModel, "clip": CLIPVisionModel, "dinov2": Dinov2Model}


def pictures(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def hidden_states(checkpoint, tower, pixels, prefix="vision."):
    """All hidden states of the whole transformers tower with the checkpoint's weights.

    Layers beyond the features keep random weights: they must not matter.
    """
    settings = checkpoint.vision_config
    settings = dict(settings[tower] if settings["model_type"] == "mof" else settings)
    # DINOv2's interpolation is a matter of its own; here the table is fitted beforehand.
    settings["image_size"] = 32
    torch.manual_seed(3)
    model = CLASSES[tower](AutoConfig.for_model(settings.pop("model_type"), **settings)).eval()
    state = model.state_dict()
    for key, target in state.items():
        name = prefix + key.removeprefix("vision_model.")
        if name in checkpoint.tensors:
            stored = checkpoint.tensors.read(name)
            fits = stored.shape == target.shape
            target.copy_(stored if fits else fit_positions(stored, target.shape[1]))
    return model(pixels, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("tower", CLASSES)
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_tower_gives_the_hidden_states_of_transformers(vision_checkpoint, tower, layer):
    checkpoint = vision_checkpoint(tower, "identity", feature_layer=layer, hidden=64)
    path = build_vision_path(checkpoint)
    states = hidden_states(checkpoint, tower, pictures())
    with torch.no_grad():
        features = path(pictures())
    assert features.shape == (2, states[0].shape[1] - 1, 64)
    assert (features - states[layer][:, 1:]).abs().max() < 1e-5
    other = states[layer - 1]
    assert (features - other[:, 1:]).abs().max() > 0.1


def test_tower_keeps_every_token_when_none_is_dropped(vision_checkpoint):
    checkpoint = vision_checkpoint("siglip", "identity", dropped_tokens=0, hidden=64)
    with torch.no_grad():
        features = build_vision_path(checkpoint)(pictures())
    expected = hidden_states(checkpoint, "siglip", pictures())[-2]
    assert features.shape == (2, 16, 64)
    assert (features - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("tower", "key", "value"),
    [
        ("siglip", "hidden_act", "gelu"),
        ("clip", "hidden_act", "gelu"),
        ("dinov2", "hidden_act", "quick_gelu"),
    ],
)
def test_tower_uses_the_activation_of_its_settings(vision_checkpoint, tower, key, value):
    checkpoint = vision_checkpoint(tower, "identity", hidden=64)
    with torch.no_grad():
        features = build_vision_path(checkpoint)(pictures())
        checkpoint.vision_config[key] = value
        other = build_vision_path(checkpoint)(pictures())
    assert (features - other).abs().max() > 1e-4


def test_mixture_of_features_gives_both_towers_on_the_same_pixels(vision_checkpoint):
    checkpoint = vision_checkpoint("mof", "mof_mlp")
    tower = build_vision_path(checkpoint).tower
    with torch.no_grad():
        clip, dinov2 = tower(pictures())
    for name, features in (("clip", clip), ("dinov2", dinov2)):
        expected = hidden_states(checkpoint, name, pictures(), f"vision.{name}.")[-2][:, 1:]
        assert (features - expected).abs().max() < 1e-5


def test_expected_tensors_stop_at_the_features(vision_checkpoint):
    names = expected_vision_tensors(vision_checkpoint("dinov2", "linear", feature_layer=-2))
    assert any(".layer.1." in name for name in names)
    assert not any(".layer.2." in name or "mask_token" in name for name in names)
    assert "vision.layernorm.weight" not in names
    # As stored: 6 x 6 patches and a class token.
    assert names["vision.embeddings.position_embeddings"] == (1, 37, 64)


def test_position_table_of_another_size_is_refused(vision_checkpoint):
    checkpoint = vision_checkpoint("dinov2", "linear")
    name = "vision.embeddings.position_embeddings"
    places = dict(checkpoint.tensors.places)
    places[name] = type(places[name])(torch.zeros(1, 26, 64))
    object.__setattr__(checkpoint, "tensors", Tensors(places))
    with pytest.raises(CheckpointError, match=r"position_embeddings has shape \[1, 26, 64\]"):
        build_vision_path(checkpoint)


def test_fitted_positions_keep_the_class_token_and_smooth_tables():
    ramp = torch.linspace(0, 1, 37).repeat_interleave(37).reshape(1, -1, 1)
    table = torch.cat((torch.full((1, 1, 1), 9.0), ramp), dim=1)
    fitted = fit_positions(table, 1 + 16 * 16)
    assert fitted.shape == (1, 257, 1)
    assert fitted[0, 0, 0] == 9
    rows = fitted[0, 1:, 0].reshape(16, 16)
    assert torch.allclose(rows, rows[:, :1].expand(-1, 16), atol=1e-5)
    # Row i is read at ((i + 0.5) * 37 / 16.1 - 0.5) / 36 of the ramp.
    expected = ((torch.arange(16) + 0.5) * 37 / 16.1 - 0.5) / 36
    assert torch.allclose(rows[1:-1, 0], expected[1:-1], atol=2e-3)
    bare_ratio = ((torch.arange(16) + 0.5) * 37 / 16 - 0.5) / 36
    assert (rows[8:-1, 0] - bare_ratio[8:-1]).abs().min() > 2e-3
    assert torch.equal(fit_positions(table, 1 + 37 * 37), table)


@pytest.mark.parametrize("layer", [0, 4, -5, 99])
def test_used_layers_refuses_layers_that_are_not_there(layer):
    with pytest.raises(CheckpointError, match=f"feature_layer {layer} of a tower with 3 layers"):
        used_layers(3, layer)
