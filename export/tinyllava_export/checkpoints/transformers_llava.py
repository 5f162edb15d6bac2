"""transformers' ``LlavaForConditionalGeneration`` folders, as tinyllava-train writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import Semantics, read_semantics
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.licence import read_licence
from tinyllava_export.checkpoints.shapes import (
    complete_text_config,
    complete_vision_config,
    text_shape,
    vision_shape,
)
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.checkpoints.weight_files import (
    find_weight_files,
    fingerprint,
    index_files,
)
from tinyllava_export.errors import CheckpointError

FORMAT = "transformers-llava"
MODEL_TYPE = "llava"
HEAD = "text.lm_head.weight"

# transformers 4 nests the parts one way on disk, 5 another; the first rule that fits counts.
NAME_RULES = (
    (r"(?:model\.)?multi_modal_projector\.linear_1\.", "connector.0."),
    (r"(?:model\.)?multi_modal_projector\.linear_2\.", "connector.2."),
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision."),
    (r"language_model\.lm_head\.", "text.lm_head."),
    (r"language_model\.model\.", "text.model."),
    (r"model\.language_model\.", "text.model."),
    (r"lm_head\.", "text.lm_head."),
)


def recognizes(config: dict[str, Any]) -> bool:
    """Whether ``config.json`` is of this format."""
    return config.get("model_type") == MODEL_TYPE


def neutral_name(key: str) -> str:
    """The neutral name of a tensor on disk. Raises ``CheckpointError`` for a foreign one."""
    for pattern, replacement in NAME_RULES:
        if match := re.match(pattern, key):
            return replacement + key[match.end() :]
    raise CheckpointError(f"tensor {key}: not part of a LLaVA model; was the model renamed?")


def open_transformers_llava(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Understand the folder. Raises ``CheckpointError`` where configuration, tensors and
    semantics contradict each other.
    """
    semantics = read_semantics(folder)
    files = find_weight_files(folder)
    tensors = Tensors(index_files(files, neutral_name))
    text_config = complete_text_config(_section(folder, config, "text_config"))
    if config.get("tie_word_embeddings") is True and HEAD not in tensors:
        text_config["tie_word_embeddings"] = True
    vision_config = complete_vision_config(_section(folder, config, "vision_config"))
    checkpoint = Checkpoint(
        folder=folder,
        format=FORMAT,
        sha256=fingerprint([*files, folder / "config.json"], root=folder),
        licence=read_licence(folder),
        semantics=semantics,
        text=text_shape(text_config),
        vision=vision_shape(vision_config),
        text_config=text_config,
        vision_config=vision_config,
        connector_config={"kind": semantics.connector.kind},
        tensors=tensors,
    )
    _check_semantics(checkpoint, config)
    return checkpoint


def _section(folder: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{folder}: config.json has no {name}; save the checkpoint again")
    return section


def _check_semantics(checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Refuse a ``tinyllava.json`` that says something else than ``config.json``."""
    semantics: Semantics = checkpoint.semantics
    dropped = 1 if config.get("vision_feature_select_strategy", "default") == "default" else 0
    claims = {
        "tower.feature_layer": (
            semantics.tower.feature_layer,
            config.get("vision_feature_layer", -2),
        ),
        "tower.dropped_tokens": (semantics.tower.dropped_tokens, dropped),
        "image.size": (semantics.image.size, checkpoint.vision.image_size),
        "connector.image_tokens": (
            semantics.connector.image_tokens,
            checkpoint.vision.tokens - semantics.tower.dropped_tokens,
        ),
        "tower.activation": (semantics.tower.activation, checkpoint.vision_config["hidden_act"]),
        "connector.activation": (
            semantics.connector.activation,
            config.get("projector_hidden_act", "gelu"),
        ),
    }
    for field, (said, meant) in claims.items():
        if said != meant:
            raise CheckpointError(
                f"{checkpoint.folder}: tinyllava.json says {field} = {said}, config.json says "
                f"{meant}; correct the one that is wrong"
            )
    text = checkpoint.text
    if semantics.context_tokens > text.context_tokens:
        raise CheckpointError(
            f"{checkpoint.folder}: tinyllava.json says context_tokens = "
            f"{semantics.context_tokens}, the language model has {text.context_tokens}; lower it"
        )
    prompt = semantics.prompt
    for token in (*prompt.eos_token_ids, prompt.bos_token_id or 0):
        if not 0 <= token < text.vocabulary:
            raise CheckpointError(
                f"{checkpoint.folder}: tinyllava.json names token {token}, the vocabulary has "
                f"{text.vocabulary}; correct its prompt ids"
            )
