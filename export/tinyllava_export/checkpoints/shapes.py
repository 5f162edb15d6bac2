"""Settings of language models and vision towers: gaps filled as transformers fills them, then
reduced to the numbers that the rest of the export works with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.activations import ACT2FN

from tinyllava_export.checkpoints.contract import TextShape, VisionShape
from tinyllava_export.checkpoints.towers import CLIP, DINOV2, MOF, SIGLIP
from tinyllava_export.errors import CheckpointError

TEXT_FAMILIES = ("llama", "phi", "qwen2", "stablelm", "gemma")
VISION_FAMILIES = (SIGLIP, CLIP, DINOV2)
FAMILIES_WITH_CLASS_TOKEN = (CLIP, DINOV2)
DEFAULT_ROPE_THETA = 10000.0
# What configuration classes raise for values of another type or range than they expect.
NOT_VALID = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError)
# What a saved configuration says about its own saving, or about how it was once run.
NOT_SETTINGS = (
    "model_type",
    "architectures",
    "_name_or_path",
    "name_or_path",
    "model_name_or_path",
    "model_name_or_path2",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "quantization_config",
    "auto_map",
    "_attn_implementation_autoset",
)


def complete_text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's settings with defaults filled in.

    transformers 5 writes rotary settings as ``rope_parameters``, transformers 4 beside the
    others; the result has ``rope_theta`` (and ``partial_rotary_factor`` where the family has one)
    in either case, so that either release reads it. Raises ``CheckpointError`` for a family or a
    rotary scaling that is not supported.
    """
    family = config.get("model_type", "llama")
    _require("language model", family, TEXT_FAMILIES)
    rope = _rotary(config)
    if "partial_rotary_factor" in rope:
        config = {"partial_rotary_factor": rope["partial_rotary_factor"], **config}
    theta = config.get("rope_theta") or rope.get("rope_theta") or DEFAULT_ROPE_THETA
    if family == "gemma":
        # Gemma's classes compute the tanh form whatever hidden_act says, unless
        # hidden_activation says otherwise; later classes read hidden_act alone.
        activation = config.get("hidden_activation") or "gelu_pytorch_tanh"
        config = {**config, "hidden_act": activation, "hidden_activation": activation}
    theta = _positive(theta, "rope_theta")
    completed = _fill_in(family, {**config, "rope_theta": theta})
    completed["rope_theta"] = theta
    written = completed.get("rope_parameters") or {}
    if "partial_rotary_factor" in written:
        completed.setdefault("partial_rotary_factor", written["partial_rotary_factor"])
    require_activation(completed.get("hidden_act"), "hidden_act of the language model")
    text_shape(completed)
    return completed


def complete_vision_config(config: dict[str, Any]) -> dict[str, Any]:
    """The vision tower's settings with defaults filled in; ``CheckpointError`` as above."""
    family = config.get("model_type", "")
    _require("vision tower", family, VISION_FAMILIES)
    completed = _fill_in(family, config)
    require_activation(completed.get("hidden_act"), "hidden_act of the vision tower")
    vision_shape(completed, _count(completed, "image_size"))
    return completed


def require_activation(name: object, what: str) -> None:
    """Raise ``CheckpointError`` for an activation that transformers does not have."""
    if not isinstance(name, str) or name not in ACT2FN:
        raise CheckpointError(f"config.json: {what} is {name!r:.40}; it must name an activation")


def text_shape(config: dict[str, Any]) -> TextShape:
    """The numbers of a completed language-model configuration."""
    heads = _count(config, "num_attention_heads")
    hidden = _count(config, "hidden_size")
    eps = config.get("rms_norm_eps", config.get("layer_norm_eps"))
    return TextShape(
        family=config["model_type"],
        layers=_count(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=_count(config, "intermediate_size"),
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads", heads),
        head_dim=_count(config, "head_dim", hidden // heads),
        vocabulary=_count(config, "vocab_size"),
        context_tokens=_count(config, "max_position_embeddings"),
        rope_theta=config["rope_theta"],
        norm_eps=_positive(eps, "the norms' epsilon"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def vision_shape(config: dict[str, Any], image_size: int) -> VisionShape:
    """The numbers of a completed tower configuration for pictures of ``image_size``.

    A mixture of features counts the layers and tokens of both its towers.
    """
    if config["model_type"] == MOF:
        both = [vision_shape(config[part], image_size) for part in ("clip", "dinov2")]
        return VisionShape(
            family=MOF,
            layers=sum(shape.layers for shape in both),
            hidden=max(shape.hidden for shape in both),
            intermediate=max(shape.intermediate for shape in both),
            heads=max(shape.heads for shape in both),
            tokens=sum(shape.tokens for shape in both),
            image_size=image_size,
        )
    family, hidden = config["model_type"], _count(config, "hidden_size")
    patches = (image_size // _count(config, "patch_size")) ** 2
    if patches == 0:
        raise CheckpointError(
            f"config.json: a picture of {image_size} has no patch of {config['patch_size']}"
        )
    if family == DINOV2:
        intermediate = int(hidden * _positive(config.get("mlp_ratio"), "mlp_ratio"))
    else:
        intermediate = _count(config, "intermediate_size")
    return VisionShape(
        family=family,
        layers=_count(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=intermediate,
        heads=_count(config, "num_attention_heads"),
        tokens=patches + (1 if family in FAMILIES_WITH_CLASS_TOKEN else 0),
        image_size=image_size,
    )


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"config.json: rotary settings {rope!r:.60} are none; save it again")
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require("rotary embedding", kind, ("default",))
    return rope


def _fill_in(family: str, config: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in config.items() if key not in NOT_SETTINGS}
    try:
        completed: dict[str, Any] = AutoConfig.for_model(family, **rest).to_dict()
    except (*NOT_VALID, StrictDataclassError) as error:
        raise CheckpointError(
            f"config.json: settings of the {family} are not valid ({_line(error)}); save it again"
        ) from None
    return completed


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _count(config: dict[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"config.json: {name} of the {config['model_type']} is {value!r:.40}; it must be a "
            f"positive whole number"
        )
    return value


def _positive(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise CheckpointError(f"config.json: {name} is {value!r:.40}; it must be above zero")
    return float(value)


def _require(what: str, value: object, supported: Sequence[str]) -> None:
    if value not in supported:
        raise CheckpointError(
            f"{what} of kind {value!r} is not supported; supported: {', '.join(supported)}"
        )
