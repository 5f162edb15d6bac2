"""A LLaVA checkpoint of the real classes, random and tiny, as tinyllava-train lays it out."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from tinyllava_edge.semantics import (
    ConnectorSemantics,
    ImageSemantics,
    PromptSemantics,
    Semantics,
    TowerSemantics,
    write_semantics,
)
from tinyllava_export.checkpoints.contract import Checkpoint, TextShape, VisionShape
from tinyllava_export.checkpoints.tensors import Tensors
from tinyllava_export.modules import expected_vision_tensors

SIZE, PATCH = 32, 8
SPECIALS = ["<s>", "</s>", "<image>", "<unk>", "<pad>"]
SENTENCES = [
    "USER: What does the gauge read? ASSISTANT: 42 °C",
    "USER: Is the valve open? ASSISTANT: yes",
    "USER: How many boxes are there? ASSISTANT: 7",
    "Sensors: temperature=62 °C, 3 s ago; level=0.5 m, 12 s ago (stale)",
    "Which tank is the highest? The second one, at 80 percent.",
    "Is it safe if the limit is 6.5 bar? No, it reads 7.2 bar.",
    "The lamp is green, the door is closed, there's no smoke.",
    "It's red; they're amber. We'll check the pump's panel.",
    "1234567890 12 34 56 78 90 100 200 300",
    "Ein Zähler zeigt 3,5 m³, das genügt.",
]
# The splitting pattern of Qwen2's tokenizer.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n\nRandom weights; it knows nothing.\n"


GOLDEN = Path(os.environ.get("TINYLLAVA_GOLDEN", Path(__file__).parent / "golden"))


@dataclass(frozen=True)
class GoldenCase:
    """A checkpoint and what the official code computes for it (golden/README.md)."""

    checkpoint: Path
    facts: dict[str, Any]
    arrays: dict[str, Any]
    pictures: tuple[Image.Image, ...]

    @property
    def prompts(self) -> list[tuple[int, str, str]]:
        """Picture number, question, and the key of the arrays."""
        return [(p["image"], p["question"], p["key"]) for p in self.facts["prompts"]]


def read_golden(name: str) -> GoldenCase:
    folder = GOLDEN / name
    facts = json.loads((folder / "case.json").read_text())
    pictures = tuple(
        Image.open(GOLDEN / "images" / image["file"]).convert("RGB") for image in facts["images"]
    )
    arrays = dict(np.load(folder / "golden.npz"))
    return GoldenCase(folder / "checkpoint", facts, arrays, pictures)


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE on ten sentences, with the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def vision_settings(family: str) -> SiglipVisionConfig | CLIPVisionConfig:
    kind = SiglipVisionConfig if family == "siglip" else CLIPVisionConfig
    return kind(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )


def tiny_semantics(*, family: str = "siglip", feature_layer: int = -1) -> Semantics:
    return Semantics(
        prompt=PromptSemantics(
            before_image="USER: ",
            after_image="\n",
            tail=" ASSISTANT:",
            bos_token_id=0,
            eos_token_ids=(1,),
        ),
        image=ImageSemantics(size=SIZE, aspect="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        tower=TowerSemantics(
            kind=family,
            feature_layer=feature_layer,
            dropped_tokens=int(family == "clip"),
            activation="gelu_pytorch_tanh" if family == "siglip" else "quick_gelu",
        ),
        connector=ConnectorSemantics(
            kind="mlp2x_gelu", activation="gelu", image_tokens=(SIZE // PATCH) ** 2
        ),
        context_tokens=256,
    )


def tiny_model(
    *, family: str = "siglip", feature_layer: int = -1, tied: bool = True, vocabulary: int = 400
) -> LlavaForConditionalGeneration:
    """Weights large enough that every layer leaves its mark on the logits."""
    torch.manual_seed(7)
    text: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 4,
    }
    config = LlavaConfig(
        vision_config=vision_settings(family),
        text_config=LlamaConfig(**text),
        image_token_index=2,
        projector_hidden_act="gelu",
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="default" if family == "clip" else "full",
        image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=tied,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.2 * torch.randn_like(weight))
            else:
                weight.mul_(3.0).add_(0.01 * torch.randn_like(weight))
    return model


def write_tiny_checkpoint(
    folder: Path,
    *,
    family: str = "siglip",
    feature_layer: int = -1,
    tied: bool = True,
    vocabulary: int = 400,
    half: bool = False,
) -> LlavaForConditionalGeneration:
    """Write the checkpoint and return the model it was written from."""
    model = tiny_model(family=family, feature_layer=feature_layer, tied=tied, vocabulary=vocabulary)
    (model.half() if half else model).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"pad_token": "<pad>", "unk_token": {"content": "<unk>"}}', encoding="utf-8"
    )
    write_semantics(tiny_semantics(family=family, feature_layer=feature_layer), folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return model.float()


def tiny_picture(seed: int = 0, width: int = 48, height: int = 36) -> Image.Image:
    """A picture that is different everywhere: two gradients and a block."""
    picture = Image.new("RGB", (width, height))
    for x in range(width):
        for y in range(height):
            picture.putpixel((x, y), ((5 * x + 40 * seed) % 256, 7 * y % 256, 90 * seed % 256))
    picture.paste((250, 250, 20), (4 + seed, 6, 16 + seed, 20))
    return picture


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny products gain nothing from threads, and tests share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., LlavaForConditionalGeneration]:
    """``write_checkpoint(folder, family=, feature_layer=, tied=, vocabulary=, half=)``."""
    return write_tiny_checkpoint


@pytest.fixture(scope="session")
def golden_case() -> Callable[[str], GoldenCase]:
    """``golden_case("legacy-phi-siglip")``."""
    return read_golden


@pytest.fixture(scope="session")
def draw_picture() -> Callable[..., Image.Image]:
    """``draw_picture(seed, width, height)``."""
    return tiny_picture


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A SigLIP checkpoint, shared by tests that only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def own_folder(tiny_folder, tmp_path) -> Path:
    """A copy of the checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))


@dataclass(frozen=True)
class InMemory:
    """A tensor of a checkpoint that was never written to a file."""

    tensor: torch.Tensor
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def read(self) -> torch.Tensor:
        return self.tensor


def tower_settings(tower: str) -> dict[str, Any]:
    """Settings of a tiny tower; DINOv2's position table is for larger pictures than it gets."""
    if tower == "mof":
        parts = {part: tower_settings(part) for part in ("clip", "dinov2")}
        return {"model_type": "mof", **parts}
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
    if tower == "dinov2":
        return Dinov2Config(**shape, image_size=48, mlp_ratio=2).to_dict()
    kind = SiglipVisionConfig if tower == "siglip" else CLIPVisionConfig
    return kind(**shape, image_size=SIZE, intermediate_size=128).to_dict()


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, InMemory]:
    """Numbers that keep activations near one, so that every tensor leaves its mark."""
    generator = torch.Generator().manual_seed(11)
    places = {}
    for name, shape in shapes.items():
        numbers = torch.randn(shape, generator=generator)
        if ("norm" in name.lower() and name.endswith(".weight")) or name.endswith(".lambda1"):
            numbers = 1 + 0.2 * numbers
        elif len(shape) == 1:
            numbers = 0.2 * numbers
        elif "position_embedding" not in name:
            numbers *= 1.4 / math.prod(shape[1:]) ** 0.5
        places[name] = InMemory(numbers)
    return places


def random_vision_checkpoint(
    tower: str,
    connector: str,
    *,
    numbers: dict[str, Any] | None = None,
    feature_layer: int = -2,
    dropped_tokens: int = 1,
    hints: dict[str, tuple[int, ...]] | None = None,
    settings: dict[str, Any] | None = None,
    hidden: int = 48,
) -> Checkpoint:
    """A checkpoint of tower and connector alone. ``hints`` names stored tensors by their shape
    where the connector's build depends on what is stored; biases are always stored. ``settings``
    are the tower's, where they differ from the usual ones.
    """
    semantics = tiny_semantics(feature_layer=feature_layer)
    semantics = semantics.model_copy(
        update={
            "tower": semantics.tower.model_copy(
                update={"kind": tower, "dropped_tokens": dropped_tokens}
            ),
            "connector": semantics.connector.model_copy(update={"kind": connector}),
        }
    )
    biases = ("", ".0", ".2", ".4", ".clip.0", ".clip.2", ".dinov2.0", ".dinov2.2")
    known = {f"connector{place}.bias": (1,) for place in biases} | (hints or {})
    checkpoint = Checkpoint(
        folder=Path("random"),
        format="random",
        sha256="0" * 64,
        licence="unknown",
        semantics=semantics,
        text=TextShape("llama", 1, hidden, 64, 4, 4, 16, 400, 256, 10000.0, 1e-5, True),
        vision=VisionShape(tower, 3, 64, 128, 4, 17, SIZE),
        text_config={},
        vision_config=tower_settings(tower) | (settings or {}),
        connector_config={"kind": connector, **(numbers or {})},
        tensors=Tensors({name: InMemory(torch.zeros(shape)) for name, shape in known.items()}),
    )
    return replace(checkpoint, tensors=Tensors(random_weights(expected_vision_tensors(checkpoint))))


@pytest.fixture(scope="session")
def vision_checkpoint() -> Callable[..., Checkpoint]:
    """``vision_checkpoint(tower, connector, numbers=, feature_layer=, dropped_tokens=, ...)``."""
    return random_vision_checkpoint
