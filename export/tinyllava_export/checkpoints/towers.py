"""What is known of vision towers by family and by name.

Image processors live in the towers' own repositories, which a checkpoint only names; so do the
sizes of a tower in a legacy checkpoint. Both are facts of a few published towers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tinyllava_edge.semantics import ImageSemantics
from tinyllava_export.errors import CheckpointError

SIGLIP, CLIP, DINOV2, MOF = "siglip_vision_model", "clip_vision_model", "dinov2", "mof"
# The words for them in semantics.
KINDS = {SIGLIP: "siglip", CLIP: "clip", DINOV2: "dinov2", MOF: "mof"}
Triple = tuple[float, float, float]
DEFAULT_FEATURE_LAYER = -2


@dataclass(frozen=True)
class ImageProcessor:
    """How a family's published image processors prepare a picture when nothing is padded.

    ``size`` and ``short_side`` are set where they are not the size that the tower was built for.
    """

    aspect: Literal["squash", "crop"]
    mean: Triple
    std: Triple
    size: int | None = None
    short_side: int | None = None


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PROCESSORS = {
    SIGLIP: ImageProcessor("squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    CLIP: ImageProcessor("crop", CLIP_MEAN, CLIP_STD),
    # Both towers of a mixture of features read the pixels of CLIP's processor.
    MOF: ImageProcessor("crop", CLIP_MEAN, CLIP_STD),
    # Trained on 518 pixels, used on 224 cut from 256.
    DINOV2: ImageProcessor("crop", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224, 256),
}


@dataclass(frozen=True)
class KnownTower:
    """Settings of a published tower that its tensors do not show."""

    family: str
    image_size: int
    heads: int
    layers: int
    activation: str
    norm_eps: float


SO400M = KnownTower(SIGLIP, 384, 16, 27, "gelu_pytorch_tanh", 1e-6)
KNOWN_TOWERS = {
    "siglip-so400m-patch14-384": SO400M,
    "siglip-base-patch16-224": KnownTower(SIGLIP, 224, 12, 12, "gelu_pytorch_tanh", 1e-6),
    "siglip-base-patch16-384": KnownTower(SIGLIP, 384, 12, 12, "gelu_pytorch_tanh", 1e-6),
    "siglip-large-patch16-384": KnownTower(SIGLIP, 384, 16, 24, "gelu_pytorch_tanh", 1e-6),
    "clip-vit-large-patch14-336": KnownTower(CLIP, 336, 16, 24, "quick_gelu", 1e-5),
    "clip-vit-large-patch14": KnownTower(CLIP, 224, 16, 24, "quick_gelu", 1e-5),
    "clip-vit-base-patch16": KnownTower(CLIP, 224, 12, 12, "quick_gelu", 1e-5),
    "clip-vit-base-patch32": KnownTower(CLIP, 224, 12, 12, "quick_gelu", 1e-5),
    # SigLIP-so400m as tuned with these models.
    "tinyllava-3.1b-siglip": SO400M,
    "tinyllava-2.0b-siglip": SO400M,
    "tinyllava-1.5b-siglip": SO400M,
}


def feature_layer(config: dict[str, Any], name: str) -> int:
    """The tower's layer that the connector reads, -2 unless said otherwise.

    Raises ``CheckpointError`` for several layers at once.
    """
    layer = config.get(name, DEFAULT_FEATURE_LAYER)
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise CheckpointError(f"config.json: {name} is {layer!r:.40}; it must be one number")
    return layer


def known_tower(name: str) -> KnownTower:
    """The tower of a repository's name. Raises ``CheckpointError`` for one that is not known."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    if last not in KNOWN_TOWERS:
        raise CheckpointError(
            f"config.json: vision tower {name!r} is not known, and a checkpoint of this format "
            f"does not hold its sizes; known: {', '.join(KNOWN_TOWERS)}"
        )
    return KNOWN_TOWERS[last]


def image_semantics(
    family: str, tower_size: int, aspect_ratio: str | None, notes: dict[str, str]
) -> ImageSemantics:
    """Preprocessing of a family's processor for the aspect ratio that a model was trained with.

    ``pad`` puts the picture on a square of the mean colour; ``square`` and None leave it to the
    processor. Raises ``CheckpointError`` for tiled pictures (``anyres``).
    """
    processor = PROCESSORS[family]
    kind = KINDS[family]
    notes["image"] = f"size, mean and std of {kind}'s published image processor"
    if aspect_ratio not in ("pad", "square", None):
        raise CheckpointError(
            f"config.json: image_aspect_ratio {aspect_ratio!r} is not supported; supported: pad, "
            f"square"
        )
    padded = aspect_ratio == "pad"
    if not padded:
        effect = "squashes to a square" if processor.aspect == "squash" else "crops the centre"
        notes["image.aspect"] = f"{aspect_ratio or 'unset'}: {kind}'s processor {effect}"
    red, green, blue = (int(255 * channel) for channel in processor.mean)
    return ImageSemantics(
        size=processor.size or tower_size,
        aspect="pad" if padded else processor.aspect,
        short_side=processor.short_side,
        fill_rgb=(red, green, blue),
        mean=processor.mean,
        std=processor.std,
    )
