"""What ``preprocessor_config.json`` says about pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tinyllava_edge.semantics import ImageSemantics
from tinyllava_export.checkpoints.json_file import read_json_object
from tinyllava_export.checkpoints.towers import CLIP_MEAN, Triple, image_semantics
from tinyllava_export.errors import CheckpointError

PROCESSOR_FILE = "preprocessor_config.json"
Resample = Literal["bicubic", "bilinear", "lanczos", "nearest"]
# Pillow's numbers of its filters.
FILTERS: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
DEFAULT_FILTER = 3
SCALE = 1 / 255


def processor_semantics(
    folder: Path, family: str, size: int, notes: dict[str, str]
) -> ImageSemantics:
    """Preprocessing as the folder's image processor does it, or as ``family``'s published one.

    Raises ``CheckpointError`` where it makes pictures of another size than the tower's, or does
    something that the edge cannot do.
    """
    path = folder / PROCESSOR_FILE
    if not path.is_file():
        semantics = image_semantics(family, size, None, notes)
        notes["image"] = f"no {PROCESSOR_FILE}; {notes['image']}"
        return semantics
    settings = read_json_object(path)
    if not settings.get("do_resize", True) or not settings.get("do_normalize", True):
        raise CheckpointError(f"{path}: do_resize or do_normalize is off; both are needed")
    scale = settings.get("rescale_factor", SCALE)
    if not isinstance(scale, (int, float)) or abs(scale - SCALE) > 1e-9:
        raise CheckpointError(f"{path}: rescale_factor {scale!r:.40}; only 1/255 is supported")
    resample = settings.get("resample", DEFAULT_FILTER)
    if not isinstance(resample, int) or resample not in FILTERS:
        raise CheckpointError(
            f"{path}: resample {resample!r:.40} is not supported; supported: {sorted(FILTERS)}"
        )
    mean = _triple(path, settings, "image_mean", CLIP_MEAN)
    red, green, blue = (min(255, int(255 * channel)) for channel in mean)
    return ImageSemantics(
        size=size,
        aspect=_aspect(path, settings, size),
        fill_rgb=(red, green, blue),
        resample=FILTERS[resample],
        mean=mean,
        std=_triple(path, settings, "image_std", None),
    )


def _aspect(path: Path, settings: dict[str, Any], size: int) -> Literal["pad", "squash", "crop"]:
    """LLaVA's own processor pads, CLIP's crops, SigLIP's squashes."""
    resized, cropped = settings.get("size", size), settings.get("crop_size", size)
    crop = settings.get("do_center_crop", "crop_size" in settings)
    lengths = _lengths(resized) + (_lengths(cropped) if crop else [])
    if any(length != size for length in lengths):
        raise CheckpointError(
            f"{path}: resizes to {resized!r:.60} and cuts to {cropped if crop else None!r:.60}, "
            f"the tower takes {size}; correct the one that is wrong"
        )
    if settings.get("do_pad"):
        return "pad"
    if crop:
        return "crop"
    if isinstance(resized, dict) and "shortest_edge" in resized:
        raise CheckpointError(f"{path}: only the short side is resized; set do_center_crop")
    return "squash"


def _lengths(size: object) -> list[object]:
    """``{"height": 384, "width": 384}``, ``{"shortest_edge": 336}`` or 336."""
    return list(size.values()) if isinstance(size, dict) else [size]


def _triple(path: Path, settings: dict[str, Any], name: str, default: Triple | None) -> Triple:
    value = settings.get(name, default)
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise CheckpointError(f"{path}: {name} is {value!r:.60}; it must be three numbers")
    if not all(isinstance(part, (int, float)) and part > 0 for part in value):
        raise CheckpointError(f"{path}: {name} is {value!r:.60}; each must be above zero")
    red, green, blue = (float(part) for part in value)
    return (red, green, blue)
