"""Build a TinyLLaVA, transformers' ``LlavaForConditionalGeneration``, from two configurations."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from tinyllava_edge.semantics import (
    ConnectorSemantics,
    ImageSemantics,
    PromptSemantics,
    Semantics,
    TowerSemantics,
)
from tinyllava_train.recipe import ModelPart
from tinyllava_train.tokenizer import BOS, EOS, IMAGE, SPECIALS


def build_model(
    part: ModelPart, tokenizer: PreTrainedTokenizerBase
) -> LlavaForConditionalGeneration:
    """A model with random weights; its vocabulary is the tokenizer's, padded to 32s."""
    vocabulary = -(-len(tokenizer) // 32) * 32
    text = _config(
        part.language_model,
        vocab_size=vocabulary,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=_config(part.vision_tower),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        projector_hidden_act="gelu",
        vision_feature_select_strategy="full" if part.keeps_all_tokens else "default",
        vision_feature_layer=part.feature_layer,
        image_seq_length=part.image_tokens,
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )
    return LlavaForConditionalGeneration(config)


def _config(settings: dict[str, Any], **extra: Any) -> Any:
    numbers = {key: value for key, value in settings.items() if key != "model_type"}
    return AutoConfig.for_model(settings["model_type"], **numbers, **extra)


def model_semantics(part: ModelPart) -> Semantics:
    """What the model built by ``build_model`` means; goes beside its weights."""
    tower = part.vision_tower
    return Semantics(
        prompt=PromptSemantics(
            before_image=f"{part.system}USER: ",
            after_image="\n",
            tail=" ASSISTANT:",
            bos_token_id=SPECIALS.index(BOS),
            eos_token_ids=(SPECIALS.index(EOS),),
        ),
        image=ImageSemantics(
            size=tower["image_size"],
            aspect=part.aspect,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        tower=TowerSemantics(
            kind=tower["model_type"].removesuffix("_vision_model"),
            feature_layer=part.feature_layer,
            dropped_tokens=0 if part.keeps_all_tokens else 1,
            activation=tower["hidden_act"],
        ),
        connector=ConnectorSemantics(
            kind="mlp2x_gelu", activation="gelu", image_tokens=part.image_tokens
        ),
        context_tokens=part.language_model["max_position_embeddings"],
    )
