"""The first TinyLLaVA models: LLaVA's flat configuration, ``model.mm_projector``, ``lm_head``.

What TinyLLaVABench's loader does to them is part of their meaning: it cuts the vocabulary to the
tokenizer's length, and reads SigLIP's last hidden state from a tower without its last layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllava_edge.semantics import Semantics, TowerSemantics
from tinyllava_export.checkpoints.connectors import connector_config, connector_semantics
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.checkpoints.factory import CONFIG_FILE, context_tokens
from tinyllava_export.checkpoints.licence import read_licence
from tinyllava_export.checkpoints.names import EMBEDDINGS, HEAD, HEAD_BIAS, rename
from tinyllava_export.checkpoints.prompts import LEGACY, end_token_ids, prompt_semantics
from tinyllava_export.checkpoints.shapes import (
    complete_text_config,
    complete_vision_config,
    text_shape,
    vision_shape,
)
from tinyllava_export.checkpoints.tensors import FirstRows, Tensors, TensorSource, Zeros
from tinyllava_export.checkpoints.tokenizer import TokenizerFacts, read_tokenizer_facts
from tinyllava_export.checkpoints.tower_sizes import tower_config
from tinyllava_export.checkpoints.towers import (
    KINDS,
    SIGLIP,
    KnownTower,
    feature_layer,
    image_semantics,
    known_tower,
)
from tinyllava_export.checkpoints.weight_files import find_weight_files, fingerprint, index_files
from tinyllava_export.errors import CheckpointError

FORMAT = "legacy-llava"
QUERY_BIAS = "text.model.layers.0.self_attn.q_proj.bias"
FAMILIES = {
    "tiny_llava": "llama",
    "tiny_llava_llama": "llama",
    "tiny_llava_phi": "phi",
    "tiny_llava_stablelm": "stablelm",
    "tiny_llava_qwen2": "qwen2",
}
# StableLM-epoch's words for what transformers' StableLm calls otherwise.
STABLELM_WORDS = {
    "rope_pct": "partial_rotary_factor",
    "norm_eps": "layer_norm_eps",
    "num_heads": "num_attention_heads",
}
NAME_RULES = (
    (r"model\.mm_projector\.", "connector."),
    (r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?", "vision."),
    (r"lm_head\.", "text.lm_head."),
    (r"model\.(?!image_newline|vision_)", "text.model."),
)


def recognizes(config: dict[str, Any]) -> bool:
    """Whether ``config.json`` is of this format."""
    kind = config.get("model_type")
    return isinstance(kind, str) and kind in FAMILIES


def neutral_name(key: str) -> str | None:
    """The neutral name of a tensor on disk; see ``rename``."""
    return rename(key, NAME_RULES, model="legacy TinyLLaVA")


def open_legacy(folder: Path, config: dict[str, Any]) -> Checkpoint:
    """Understand the folder. Raises ``CheckpointError``."""
    files = find_weight_files(folder)
    places = index_files(files, neutral_name)
    tokenizer = read_tokenizer_facts(folder)
    text_config = complete_text_config(_text_settings(config, biased=QUERY_BIAS in places))
    _fit_vocabulary(places, text_config, _length(config, tokenizer))
    tensors = Tensors(places)
    tower = known_tower(str(config.get("mm_vision_tower", "")))
    vision_config = complete_vision_config(tower_config(tensors, "vision.", tower))
    connector = _connector(config, tensors)
    vision = vision_shape(vision_config, tower.image_size)
    notes = {
        "vision": f"mm_vision_tower {config['mm_vision_tower']}: heads, picture size and norm "
        f"epsilon of the known tower, other sizes from the tensors"
    }
    chosen = _tower_semantics(config, tower, vision.layers, notes)
    return Checkpoint(
        folder=folder,
        format=FORMAT,
        sha256=fingerprint([*files, folder / CONFIG_FILE], root=folder),
        licence=read_licence(folder),
        semantics=Semantics(
            prompt=prompt_semantics(
                LEGACY,
                tokenizer,
                end_tokens=end_token_ids(folder, text_config, tokenizer),
                notes=notes,
            ),
            image=image_semantics(
                tower.family, tower.image_size, config.get("image_aspect_ratio"), notes
            ),
            tower=chosen,
            connector=connector_semantics(connector, vision.tokens - chosen.dropped_tokens),
            context_tokens=context_tokens(config, text_config, notes),
            notes=notes,
        ),
        text=text_shape(text_config),
        vision=vision,
        text_config=text_config,
        vision_config=vision_config,
        connector_config=connector,
        tensors=tensors,
    )


def _text_settings(config: dict[str, Any], *, biased: bool) -> dict[str, Any]:
    """The language model's settings, which lie among the others, under transformers' words.

    ``biased`` tells whether the queries have a bias, which StableLM-epoch's settings may leave
    to its defaults.
    """
    family = FAMILIES[config["model_type"]]
    settings = {
        key: value
        for key, value in config.items()
        if not key.startswith(("mm_", "tune_", "freeze_", "unfreeze_", "image_", "tokenizer_"))
    }
    if family == "stablelm":
        for old, new in STABLELM_WORDS.items():
            if old in settings:
                settings[new] = settings.pop(old)
        settings["use_qkv_bias"] = biased
    return {**settings, "model_type": family}


def _length(config: dict[str, Any], tokenizer: TokenizerFacts) -> int:
    """Tokens after the loader has added its own, which it does unless the settings deny it."""
    patch = 1 if config.get("mm_use_im_patch_token", True) else 0
    ends = 2 if config.get("mm_use_im_start_end", False) else 0
    return tokenizer.length + patch + ends


def _fit_vocabulary(
    places: dict[str, TensorSource], text_config: dict[str, Any], length: int
) -> None:
    """Cut embeddings and head to ``length`` rows; give Phi the bias that its head lacks here."""
    if EMBEDDINGS not in places:
        raise CheckpointError(f"tensor {EMBEDDINGS} is missing; save the whole model")
    rows = min(length, (places[EMBEDDINGS].shape or (0,))[0])
    if text_config.get("tie_word_embeddings"):
        places.pop(HEAD, None)
    for name in (EMBEDDINGS, HEAD, HEAD_BIAS):
        if name in places:
            places[name] = FirstRows(places[name], rows)
    if text_config["model_type"] == "phi" and HEAD_BIAS not in places:
        places[HEAD_BIAS] = Zeros((rows,))
    text_config["vocab_size"] = rows


def _connector(config: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    kind = config.get("mm_projector_type", "linear")
    if kind in ("resampler", "qformer", "mof_mlp"):
        raise CheckpointError(
            f"config.json: mm_projector_type {kind!r} of a legacy checkpoint is not supported; "
            f"supported: mlpNx_gelu, linear, identity"
        )
    return connector_config(kind, config, tensors)


def _tower_semantics(
    config: dict[str, Any], tower: KnownTower, layers: int, notes: dict[str, str]
) -> TowerSemantics:
    if tower.family == SIGLIP:
        # A tower with all its layers would lose the last one in the loader.
        layer = -2 if layers >= tower.layers else -1
        notes["tower.feature_layer"] = (
            f"{layer} of {layers} stored layers: TinyLLaVABench removes SigLIP's last layer and "
            f"reads the end of the rest, whatever mm_vision_select_layer says"
        )
        notes["tower.dropped_tokens"] = "0: TinyLLaVABench keeps all of SigLIP's tokens"
        return TowerSemantics(
            kind=KINDS[SIGLIP], feature_layer=layer, dropped_tokens=0, activation=tower.activation
        )
    feature = config.get("mm_vision_select_feature", "patch")
    if feature not in ("patch", "cls_patch"):
        raise CheckpointError(
            f"config.json: mm_vision_select_feature {feature!r:.40} is not known; known: patch, "
            f"cls_patch"
        )
    return TowerSemantics(
        kind=KINDS[tower.family],
        feature_layer=feature_layer(config, "mm_vision_select_layer"),
        dropped_tokens=1 if feature == "patch" else 0,
        activation=tower.activation,
    )
