"""transformers' ``LlavaForConditionalGeneration`` folders, also as tinyllava-train writes them.

Training writes ``tinyllava.json`` beside the weights, which is then compared with
``config.json``; without it the meaning is derived from configuration and image processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import FILE_NAME as SEMANTICS_FILE
from tinyllava_edge.semantics import Semantics, TowerSemantics, read_semantics
from tinyllava_export.checkpoints.chat_template import processor_template
from tinyllava_export.checkpoints.connectors import connector_config, connector_semantics
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.factory import CONFIG_FILE, section
from tinyllava_export.checkpoints.image_processor import processor_semantics
from tinyllava_export.checkpoints.licence import read_licence
from tinyllava_export.checkpoints.names import HEAD, rename
from tinyllava_export.checkpoints.prompts import LLAVA, end_token_ids, prompt_semantics
from tinyllava_export.checkpoints.shapes import (
    complete_text_config,
    complete_vision_config,
    require_activation,
    text_shape,
    vision_shape,
)
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.checkpoints.tokenizer import read_tokenizer_facts
from tinyllava_export.checkpoints.towers import KINDS, feature_layer
from tinyllava_export.checkpoints.weight_files import (
    find_weight_files,
    fingerprint,
    index_files,
)
from tinyllava_export.errors import CheckpointError

FORMAT = "transformers-llava"
MODEL_TYPE = "llava"
CONNECTOR = "mlp2x_gelu"
DEFAULT_STRATEGY, DEFAULT_ACTIVATION = "default", "gelu"

# transformers 4 nests the parts one way on disk, 5 another.
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


def neutral_name(key: str) -> str | None:
    """The neutral name of a tensor on disk; see ``rename``."""
    return rename(key, NAME_RULES, model="LLaVA")


def open_transformers_llava(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Understand the folder. Raises ``CheckpointError`` where configuration, tensors and
    semantics contradict each other.
    """
    files = find_weight_files(folder)
    tensors = Tensors(index_files(files, neutral_name))
    text_config = complete_text_config(section(config, "text_config"))
    if config.get("tie_word_embeddings") is True and HEAD not in tensors:
        text_config["tie_word_embeddings"] = True
    vision_config = complete_vision_config(section(config, "vision_config"))
    activation = config.get("projector_hidden_act", DEFAULT_ACTIVATION)
    require_activation(activation, "projector_hidden_act")
    stated = (folder / SEMANTICS_FILE).is_file()
    semantics = (
        read_semantics(folder)
        if stated
        else _derive_semantics(folder, config, text_config, vision_config, tensors)
    )
    checkpoint = Checkpoint(
        folder=folder,
        format=FORMAT,
        sha256=fingerprint([*files, folder / CONFIG_FILE], root=folder),
        licence=read_licence(folder),
        semantics=semantics,
        text=text_shape(text_config),
        vision=vision_shape(vision_config, vision_config["image_size"]),
        text_config=text_config,
        vision_config=vision_config,
        connector_config=connector_config(CONNECTOR, config, tensors),
        tensors=tensors,
    )
    if stated:
        _check_semantics(checkpoint, config)
    return checkpoint


def _derive_semantics(
    folder: Path,
    config: dict[str, Any],
    text_config: dict[str, Any],
    vision_config: dict[str, Any],
    tensors: Tensors,
) -> Semantics:
    notes: dict[str, str] = {}
    size: int = vision_config["image_size"]
    vision = vision_shape(vision_config, size)
    dropped = _dropped_tokens(config)
    tokenizer = read_tokenizer_facts(folder)
    return Semantics(
        prompt=prompt_semantics(
            processor_template(folder, tokenizer.control_tokens) or LLAVA,
            tokenizer,
            end_tokens=end_token_ids(folder, text_config, tokenizer),
            notes=notes,
            whole_text=True,
        ),
        image=processor_semantics(folder, vision.family, size, notes),
        tower=TowerSemantics(
            kind=KINDS[vision.family],
            feature_layer=feature_layer(config, "vision_feature_layer"),
            dropped_tokens=dropped,
            activation=vision_config["hidden_act"],
        ),
        connector=connector_semantics(
            connector_config(CONNECTOR, config, tensors),
            vision.tokens - dropped,
            activation=config.get("projector_hidden_act", DEFAULT_ACTIVATION),
        ),
        context_tokens=text_config["max_position_embeddings"],
        notes=notes,
    )


def _dropped_tokens(config: dict[str, Any]) -> int:
    strategy = config.get("vision_feature_select_strategy", DEFAULT_STRATEGY)
    if strategy not in ("default", "full"):
        raise CheckpointError(
            f"config.json: vision_feature_select_strategy {strategy!r:.40} is not known; known: "
            f"default, full"
        )
    return 1 if strategy == "default" else 0


def _check_semantics(checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Refuse a ``tinyllava.json`` that says something else than ``config.json``."""
    semantics: Semantics = checkpoint.semantics
    claims = {
        "tower.feature_layer": (
            semantics.tower.feature_layer,
            feature_layer(config, "vision_feature_layer"),
        ),
        "tower.dropped_tokens": (semantics.tower.dropped_tokens, _dropped_tokens(config)),
        "image.size": (semantics.image.size, checkpoint.vision.image_size),
        "connector.kind": (semantics.connector.kind, CONNECTOR),
        "connector.image_tokens": (
            semantics.connector.image_tokens,
            checkpoint.vision.tokens - semantics.tower.dropped_tokens,
        ),
        "tower.activation": (semantics.tower.activation, checkpoint.vision_config["hidden_act"]),
        "connector.activation": (
            semantics.connector.activation,
            config.get("projector_hidden_act", DEFAULT_ACTIVATION),
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
