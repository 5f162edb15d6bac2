import numpy as np
import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from tinyllava_export.errors import CheckpointError
from tinyllava_export.modules import build_vision_path, expected_vision_tensors
from tinyllava_export.modules.vision_path import reserved_vision_path

RESAMPLER = {"queries": 6, "layers": 2, "heads": 8, "head_dim": 64}
QFORMER = {"queries": 6, "layers": 3, "heads": 4, "hidden": 32, "intermediate": 64}


def features(tokens=16):
    return torch.randn(2, tokens, 64, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def run(checkpoint, inputs):
    return build_vision_path(checkpoint).connector(inputs).numpy()


def weights(checkpoint, prefix="connector."):
    """The connector's numbers by the names of the official code."""
    tensors = checkpoint.tensors
    names = tensors.names(prefix)
    return {name.removeprefix(prefix): tensors.read(name).double().numpy() for name in names}


# ------------------------------------------------------- the same computed plainly, in float64


def gelu(x):
    return 0.5 * x * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())


def norm(x, w, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def affine(x, w, name):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def attention(q, k, v, heads):
    width = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = q[..., own] @ np.swapaxes(k[..., own], -1, -2) / np.sqrt(width)
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(odds / odds.sum(-1, keepdims=True) @ v[..., own])
    return np.concatenate(parts, axis=-1)


def feed_forward(x, w, name):
    return affine(gelu(affine(norm(x, w, f"{name}.0"), w, f"{name}.1")), w, f"{name}.3")


def mlp(x, w, depth):
    for index in range(depth):
        x = affine(gelu(x) if index else x, w, f"{2 * index}")
    return x


def factory_resampler(x, w, layers):
    x = affine(x, w, "linear")
    latents = np.broadcast_to(w["latents"], (len(x), *w["latents"].shape))
    for index in range(layers):
        name = f"layers.{index}.0"
        own = norm(latents, w, f"{name}.norm_latents")
        context = np.concatenate((norm(x, w, f"{name}.norm_media"), own), axis=1)
        k, v = np.split(affine(context, w, f"{name}.to_kv"), 2, axis=-1)
        read = attention(affine(own, w, f"{name}.to_q"), k, v, 8)
        latents = affine(read, w, f"{name}.to_out") + latents
        latents = feed_forward(latents, w, f"layers.{index}.1") + latents
    return norm(latents, w, "norm")


def legacy_resampler(x, w, layers, heads):
    queries = np.broadcast_to(w["queries"], (len(x), *w["queries"].shape))
    for index in range(layers):
        name = f"resampler_blocks.{index}"
        seen = norm(x, w, f"{name}.norm_image")
        k, v = affine(seen, w, f"{name}.to_k"), affine(seen, w, f"{name}.to_v")
        q = affine(norm(queries, w, f"{name}.norm_hidden"), w, f"{name}.to_q")
        queries = affine(attention(q, k, v, heads), w, f"{name}.to_out") + queries
        queries = feed_forward(queries, w, f"{name}.feed_forward") + queries
    return affine(norm(queries, w, "post_norm"), w, "final_proj")


# ------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_has_exact_gelus_between_its_layers(vision_checkpoint, depth):
    checkpoint = vision_checkpoint("clip", f"mlp{depth}x_gelu", numbers={"depth": depth})
    expected = mlp(features().double().numpy(), weights(checkpoint), depth)
    assert np.abs(run(checkpoint, features()) - expected).max() < 1e-5
    assert len(weights(checkpoint)) == 2 * depth


def test_linear_and_identity(vision_checkpoint):
    checkpoint = vision_checkpoint("clip", "linear")
    w = weights(checkpoint, "connector.")
    expected = features().double().numpy() @ w["weight"].T + w["bias"]
    assert np.abs(run(checkpoint, features()) - expected).max() < 1e-5
    kept = run(vision_checkpoint("clip", "identity", hidden=64), features())
    assert np.array_equal(kept, features().numpy())


def test_factory_resampler_attends_to_features_and_queries(vision_checkpoint):
    checkpoint = vision_checkpoint("clip", "resampler", numbers=RESAMPLER)
    expected = factory_resampler(features().double().numpy(), weights(checkpoint), 2)
    result = run(checkpoint, features())
    assert result.shape == (2, 6, 48)
    assert np.abs(result - expected).max() < 1e-5


@pytest.mark.parametrize(("hidden", "heads"), [(48, 12), (512, 8)])
def test_legacy_resampler_works_at_its_own_width(vision_checkpoint, hidden, heads):
    checkpoint = vision_checkpoint(
        "siglip", "resampler", numbers=RESAMPLER, hints={"connector.queries": (6, hidden)}
    )
    w = weights(checkpoint)
    expected = legacy_resampler(features().double().numpy(), w, 2, heads)
    result = run(checkpoint, features())
    assert result.shape == (2, 6, 48)
    assert np.abs(result - expected).max() < 2e-5
    wrong = legacy_resampler(features().double().numpy(), w, 2, 4)
    assert np.abs(result - wrong).max() > 1e-3


@torch.no_grad()
def test_qformer_computes_what_blip_2s_does(vision_checkpoint):
    checkpoint = vision_checkpoint("siglip", "qformer", numbers=QFORMER)
    config = Blip2QFormerConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        encoder_hidden_size=64,
        cross_attention_frequency=2,
        layer_norm_eps=1e-12,
    )
    model = Blip2QFormerModel(config).eval()
    for key, target in model.state_dict().items():
        # The norm of the queries has no weights in Factory: one and zero.
        if not key.startswith("layernorm."):
            name = key.replace("attention.attention.", "attention.self.")
            target.copy_(checkpoint.tensors.read(f"connector.bert.{name}"))
    w = {key: torch.from_numpy(value).float() for key, value in weights(checkpoint).items()}
    output = model(
        query_embeds=w["query_tokens"].expand(2, -1, -1), encoder_hidden_states=features()
    )
    expected = output.last_hidden_state @ w["projector.weight"].T + w["projector.bias"]
    result = run(checkpoint, features())
    assert result.shape == (2, 6, 48)
    assert np.abs(result - expected.numpy()).max() < 1e-5
    other = run(checkpoint, features().flip(0))
    assert np.abs(result - other).max() > 1e-2


def test_qformer_has_the_names_and_sizes_of_bert_base(vision_checkpoint):
    names = expected_vision_tensors(vision_checkpoint("siglip", "qformer", numbers={"queries": 4}))
    bert = "connector.bert.encoder.layer"
    assert names[f"{bert}.0.crossattention.self.key.weight"] == (768, 64)
    assert names[f"{bert}.11.attention.output.LayerNorm.bias"] == (768,)
    assert names[f"{bert}.11.intermediate_query.dense.weight"] == (3072, 768)
    assert f"{bert}.1.crossattention.self.key.weight" not in names
    assert f"{bert}.0.intermediate.dense.weight" not in names
    assert not any("embeddings" in name for name in names if name.startswith("connector."))


def test_mof_mlp_alternates_the_tokens_of_both_towers(vision_checkpoint):
    checkpoint = vision_checkpoint("mof", "mof_mlp")
    pair = features(), features().flip(1)
    result = run(checkpoint, pair)
    assert result.shape == (2, 32, 48)
    for offset, (part, name) in enumerate(zip(pair, ("clip", "dinov2"), strict=True)):
        expected = mlp(part.double().numpy(), weights(checkpoint, f"connector.{name}."), 2)
        assert np.abs(result[:, offset::2] - expected).max() < 1e-5


def test_connector_without_biases_is_built_without_them(vision_checkpoint):
    checkpoint = vision_checkpoint("clip", "mlp2x_gelu")
    places = dict(checkpoint.tensors.places)
    del places["connector.2.bias"]
    object.__setattr__(checkpoint, "tensors", type(checkpoint.tensors)(places))
    assert "connector.2.bias" not in expected_vision_tensors(checkpoint)
    assert "connector.0.bias" in expected_vision_tensors(checkpoint)


@pytest.mark.parametrize(
    ("tower", "kind", "message"),
    [
        ("clip", "mlp2x_relu", "connector 'mlp2x_relu' is not known; known: identity, linear"),
        ("clip", "mof_mlp", "mof_mlp with tower clip_vision_model"),
        ("mof", "mlp2x_gelu", "mlp2x_gelu with tower mof"),
        ("clip", "identity", "from a tower of width 64 to a language model of width 48"),
    ],
)
def test_connector_that_cannot_be_is_refused(vision_checkpoint, tower, kind, message):
    with pytest.raises(CheckpointError, match=message):
        vision_checkpoint(tower, kind)


def test_connector_refuses_an_unknown_activation(vision_checkpoint):
    checkpoint = vision_checkpoint("clip", "mlp2x_gelu")
    connector = checkpoint.semantics.connector.model_copy(update={"activation": "swush"})
    semantics = checkpoint.semantics.model_copy(update={"connector": connector})
    object.__setattr__(checkpoint, "semantics", semantics)
    with pytest.raises(CheckpointError, match="connector activation 'swush' is not known"):
        reserved_vision_path(checkpoint)
