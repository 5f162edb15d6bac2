"""Settings of language models and vision towers: gaps filled as transformers fills them, then
reduced to the numbers that the rest of the export works with.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from tinyllava_export.checkpoints.contract import TextShape, VisionShape
from tinyllava_export.errors import CheckpointError

TEXT_FAMILIES = ("llama",)
VISION_FAMILIES = ("siglip_vision_model", "clip_vision_model")
FAMILIES_WITH_CLASS_TOKEN = ("clip_vision_model",)
DEFAULT_ROPE_THETA = 10000.0


def complete_text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's settings with defaults filled in.

    transformers 5 writes the rotary base as ``rope_parameters``, transformers 4 as
    ``rope_theta``; the result has ``rope_theta`` in either case, so that either release reads it.
    Raises ``CheckpointError`` for a family or a rotary scaling that is not supported.
    """
    family = config.get("model_type", "llama")
    _require("language model", family, TEXT_FAMILIES)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require("rotary embedding", kind, ("default",))
    theta = config.get("rope_theta") or rope.get("rope_theta") or DEFAULT_ROPE_THETA
    completed = _fill_in(family, {**config, "rope_theta": float(theta)})
    completed["rope_theta"] = float(theta)
    return completed


def complete_vision_config(config: dict[str, Any]) -> dict[str, Any]:
    """The vision tower's settings with defaults filled in; ``CheckpointError`` as above."""
    family = config.get("model_type", "")
    _require("vision tower", family, VISION_FAMILIES)
    return _fill_in(family, config)


def text_shape(config: dict[str, Any]) -> TextShape:
    """The numbers of a completed language-model configuration."""
    heads = config["num_attention_heads"]
    return TextShape(
        family=config["model_type"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        context_tokens=config["max_position_embeddings"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def vision_shape(config: dict[str, Any]) -> VisionShape:
    """The numbers of a completed vision-tower configuration."""
    family = config["model_type"]
    patches = (config["image_size"] // config["patch_size"]) ** 2
    return VisionShape(
        family=family,
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        tokens=patches + (1 if family in FAMILIES_WITH_CLASS_TOKEN else 0),
        image_size=config["image_size"],
    )


def _fill_in(family: str, config: dict[str, Any]) -> dict[str, Any]:

    rest = {key: value for key, value in config.items() if key != "model_type"}
    try:
        completed: dict[str, Any] = AutoConfig.for_model(family, **rest).to_dict()
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json: settings of the {family} are not valid ({error}); save it again"
        ) from None
    return completed


def _require(what: str, value: str, supported: tuple[str, ...]) -> None:
    if value not in supported:
        raise CheckpointError(
            f"{what} of kind {value!r} is not supported; supported: {', '.join(supported)}"
        )
