"""The model card that travels with a checkpoint and the bundles made of it."""

from __future__ import annotations

from transformers import LlavaForConditionalGeneration

from tinyllava_train.panels.questions import ASKERS
from tinyllava_train.recipe import Recipe

_TEXT = """---
license: apache-2.0
---

# {name}

A very small TinyLLaVA: {millions:.1f} million parameters. It reads drawn instrument panels and
**knows nothing else**. It was trained from random weights on pictures that a program drew
(`tinyllava_train/panels/`): gauges, status LEDs, tanks, seven-segment displays, valves, doors,
boxes, smoke and leaks. It has never seen a photograph. On any other picture its answers mean
nothing, however confident they look.

- Parts: {tower} tower {tower_layers} x {tower_width} at {image} px, {tokens} image tokens;
  two-layer MLP connector; {language} language model {text_layers} x {text_width}, its own
  byte-level BPE vocabulary of {vocabulary}.
- Kinds of question: {kinds}; and "Describe the panel."
- Sensor readings may stand in the prompt; it was trained to say whether the picture confirms
  them. It answers `unknown` to a question about an instrument that is not there.
- English, lower-case answers of a few tokens.
- Made by `tinyllava-train run panels`. Stages: {stages}.
- Licence: Apache-2.0. All pictures and texts are generated; no third-party data or weights.

Not for decisions about real machines.
"""


def model_card(recipe: Recipe, model: LlavaForConditionalGeneration) -> str:
    """Say plainly what the model was trained on and that it knows nothing else."""
    tower, text = recipe.model.vision_tower, recipe.model.language_model
    return _TEXT.format(
        name=recipe.model.name,
        millions=sum(p.numel() for p in model.parameters()) / 1e6,
        tower=tower["model_type"].removesuffix("_vision_model"),
        tower_layers=tower["num_hidden_layers"],
        tower_width=tower["hidden_size"],
        image=tower["image_size"],
        tokens=recipe.model.image_tokens,
        language=text["model_type"],
        text_layers=text["num_hidden_layers"],
        text_width=text["hidden_size"],
        vocabulary=model.config.text_config.vocab_size,
        kinds=", ".join(ASKERS),
        stages=", ".join(stage.name for stage in recipe.stages),
    )
