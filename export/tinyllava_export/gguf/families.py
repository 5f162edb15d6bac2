"""The language-model families and what llama.cpp's graph of each computes.

A graph is fixed: it knows one activation, one kind of norm and one order of rotary pairs, and it
does not notice a checkpoint that was trained with another. So what a configuration asks for is
compared with what the graph does before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES

from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.errors import CheckpointError

SILU = ("silu", "swish")
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


@dataclass(frozen=True)
class Family:
    """One of llama.cpp's graphs.

    ``rms_norm``: norms divide by the root mean square (else layer norms with a mean and a bias).
    ``paired_rotary``: rotates dimension ``2i`` with ``2i + 1`` (else ``i`` with ``i + dims / 2``,
    as transformers does). ``norm_offset`` is what transformers adds to norm weights as it runs
    and llama.cpp does not. ``head`` says whether the graph wants an output head of its own:
    ``optional`` takes the embedding table where there is none, ``required`` does not load
    without, ``shared`` takes the embedding table in any case. ``settings`` are configuration keys
    with the only value the graph computes.

    Embeddings that come in place of tokens (the picture's) go through the same graph from its
    first node on. The Gemma graph multiplies that node by sqrt(hidden), pictures included, as the
    transformers releases did that TinyLLaVA's models were trained with (4.x); so no family needs
    its picture scaled by the engine.
    """

    arch: MODEL_ARCH
    rms_norm: bool
    activations: tuple[str, ...]
    paired_rotary: bool = False
    norm_offset: float = 0.0
    head: str = "optional"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """llama.cpp's word for the architecture, the first part of its settings' keys."""
        return str(MODEL_ARCH_NAMES[self.arch])


FAMILIES: dict[str, Family] = {
    "llama": Family(MODEL_ARCH.LLAMA, rms_norm=True, activations=SILU, paired_rotary=True),
    "qwen2": Family(
        MODEL_ARCH.QWEN2,
        rms_norm=True,
        activations=SILU,
        settings={"use_sliding_window": False},
    ),
    "phi": Family(
        MODEL_ARCH.PHI2,
        rms_norm=False,
        activations=TANH_GELU,
        head="required",
        settings={"qk_layernorm": False},
    ),
    "stablelm": Family(
        MODEL_ARCH.STABLELM,
        rms_norm=False,
        activations=SILU,
        head="required",
        settings={"qk_layernorm": False},
    ),
    "gemma": Family(
        MODEL_ARCH.GEMMA,
        rms_norm=True,
        activations=TANH_GELU,
        norm_offset=1.0,
        head="shared",
        settings={"attention_bias": False},
    ),
}


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint's language model.

    Raises ``CheckpointError`` where llama.cpp has no graph that computes the same.
    """
    name = checkpoint.text.family
    if name not in FAMILIES:
        raise CheckpointError(
            f"{checkpoint.folder}: language model of kind {name!r} has no place in GGUF here; "
            f"known: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    config = checkpoint.text_config
    activation = config.get("hidden_act", family.activations[0])
    if activation not in family.activations:
        _refuse(checkpoint, "hidden_act", activation, " or ".join(family.activations))
    for key, computed in family.settings.items():
        if config.get(key, computed) != computed:
            _refuse(checkpoint, key, config[key], str(computed))
    if family.head == "shared" and not checkpoint.text.tied_embeddings:
        _refuse(checkpoint, "tie_word_embeddings", False, "True")
    return family


def rotary_dims(checkpoint: Checkpoint) -> int:
    """How many dimensions of a head are rotated; an even number, the rest pass unchanged."""
    config = checkpoint.text_config
    rope = config.get("rope_parameters") or {}
    share = config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0))
    dims = int(checkpoint.text.head_dim * share)
    if not 0 < dims <= checkpoint.text.head_dim or dims % 2:
        raise CheckpointError(
            f"{checkpoint.folder}: partial_rotary_factor {share} rotates {dims} of "
            f"{checkpoint.text.head_dim} dimensions, which must be an even number; correct "
            f"config.json"
        )
    return dims


def _refuse(checkpoint: Checkpoint, key: str, value: object, computed: str) -> None:
    raise CheckpointError(
        f"{checkpoint.folder}: {key} is {value!r}, llama.cpp's {checkpoint.text.family} computes "
        f"{computed} only; export it to another target"
    )
