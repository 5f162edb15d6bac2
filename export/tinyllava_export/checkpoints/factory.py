"""What TinyLLaVA_Factory's three layouts have in common: names, settings and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import Semantics, TowerSemantics
from tinyllava_export.checkpoints.connectors import connector_config, connector_semantics
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.licence import read_licence
from tinyllava_export.checkpoints.names import HEAD, rename
from tinyllava_export.checkpoints.prompts import FACTORY, end_token_ids, prompt_semantics
from tinyllava_export.checkpoints.shapes import (
    FAMILIES_WITH_CLASS_TOKEN,
    complete_text_config,
    complete_vision_config,
    text_shape,
    vision_shape,
)
from tinyllava_export.checkpoints.tensors import Tensors, TensorSource
from tinyllava_export.checkpoints.tokenizer import read_tokenizer_facts
from tinyllava_export.checkpoints.tower_sizes import dinov2_config
from tinyllava_export.checkpoints.towers import (
    KINDS,
    MOF,
    feature_layer,
    image_semantics,
)
from tinyllava_export.checkpoints.weight_files import fingerprint
from tinyllava_export.errors import CheckpointError

MODEL_TYPE = "tinyllava"
CONFIG_FILE = "config.json"
DEFAULT_STRATEGY = "patch"

NAME_RULES = (
    (r"language_model\.", "text."),
    (r"vision_tower\._vision_tower\.(clip|dinov2)\.(?:vision_model\.)?", r"vision.\1."),
    (r"vision_tower\._vision_tower\.(?:vision_model\.)?", "vision."),
    (r"connector\._connector\.", "connector."),
)


def is_factory(config: dict[str, Any]) -> bool:
    """Whether ``config.json`` is of one of the three layouts."""
    return config.get("model_type") == MODEL_TYPE


def neutral_name(key: str) -> str | None:
    """The neutral name of a tensor on disk; see ``rename``."""
    return rename(key, NAME_RULES, model="TinyLLaVA")


def factory_checkpoint(
    folder: Path,
    config: dict[str, Any],
    *,
    form: str,
    places: dict[str, TensorSource],
    files: list[Path],
) -> Checkpoint:
    """Understand a folder whose tensors have been listed.

    Raises ``CheckpointError`` where the configuration is damaged or not supported.
    """
    tensors = Tensors(places)
    text_config = complete_text_config(section(config, "text_config"))
    if text_config.get("tie_word_embeddings"):
        places.pop(HEAD, None)
    vision_config = _vision_config(config, tensors)
    connector = connector_config(config.get("connector_type"), config, tensors)
    semantics = _semantics(folder, config, text_config, vision_config, connector)
    return Checkpoint(
        folder=folder,
        format=form,
        sha256=fingerprint([*files, folder / CONFIG_FILE], root=folder),
        licence=read_licence(folder),
        semantics=semantics,
        text=text_shape(text_config),
        vision=vision_shape(vision_config, semantics.image.size),
        text_config=text_config,
        vision_config=vision_config,
        connector_config=connector,
        tensors=tensors,
    )


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of ``config.json``. Raises ``CheckpointError`` where it is missing."""
    part = config.get(name)
    if not isinstance(part, dict):
        raise CheckpointError(f"config.json has no {name}; save the checkpoint again")
    return part


def _vision_config(config: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """One tower's settings, or those of a mixture of features.

    The configuration of a mixture describes its CLIP alone.
    """
    completed = complete_vision_config(section(config, "vision_config"))
    if next(tensors.names("vision.dinov2."), None) is None:
        return completed
    name = str(config.get("vision_model_name_or_path2", ""))
    dinov2 = complete_vision_config(dinov2_config(tensors, "vision.dinov2.", name))
    return {"model_type": MOF, "clip": completed, "dinov2": dinov2}


def _semantics(
    folder: Path,
    config: dict[str, Any],
    text_config: dict[str, Any],
    vision_config: dict[str, Any],
    connector: dict[str, Any],
) -> Semantics:
    notes: dict[str, str] = {}
    family = vision_config["model_type"]
    clip = vision_config["clip"] if family == MOF else vision_config
    image = image_semantics(
        family, clip["image_size"], config.get("image_aspect_ratio", "square"), notes
    )
    tower = _tower_semantics(config, vision_config)
    shape = vision_shape(vision_config, image.size)
    used = shape.tokens - tower.dropped_tokens * (2 if family == MOF else 1)
    meaning = connector_semantics(connector, used)
    if tower.dropped_tokens and family not in (*FAMILIES_WITH_CLASS_TOKEN, MOF):
        reason = (
            f"{used}, not {shape.tokens}: TinyLLaVA_Factory drops the first token of every tower, "
            f"also of {KINDS[family]}, which has no class token; the model was trained so"
        )
        notes["tower.dropped_tokens"] = reason
        if meaning.image_tokens == used:
            notes["connector.image_tokens"] = reason
    tokenizer = read_tokenizer_facts(folder)
    prompt = prompt_semantics(
        FACTORY, tokenizer, end_tokens=end_token_ids(folder, text_config, tokenizer), notes=notes
    )
    return Semantics(
        prompt=prompt,
        image=image,
        tower=tower,
        connector=meaning,
        context_tokens=context_tokens(config, text_config, notes),
        notes=notes,
    )


def _tower_semantics(config: dict[str, Any], vision_config: dict[str, Any]) -> TowerSemantics:
    strategy = config.get("vision_feature_select_strategy", DEFAULT_STRATEGY)
    if strategy not in ("patch", "cls_patch"):
        raise CheckpointError(
            f"config.json: vision_feature_select_strategy {strategy!r:.40} is not known; known: "
            f"patch, cls_patch"
        )
    family = vision_config["model_type"]
    part = vision_config["clip"] if family == MOF else vision_config
    return TowerSemantics(
        kind=KINDS[family],
        feature_layer=feature_layer(config, "vision_feature_layer"),
        dropped_tokens=1 if strategy == "patch" else 0,
        activation=part["hidden_act"],
    )


def context_tokens(
    config: dict[str, Any], text_config: dict[str, Any], notes: dict[str, str]
) -> int:
    """How long a prompt with its answer may be: as in training, at most what the model holds."""
    most: int = text_config["max_position_embeddings"]
    trained = config.get("tokenizer_model_max_length")
    if isinstance(trained, int) and 0 < trained < most:
        notes["context_tokens"] = (
            f"{trained} of {most}: tokenizer_model_max_length, the longest it was trained on"
        )
        return trained
    return most
