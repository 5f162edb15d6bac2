"""What a checkpoint means: everything between pixels and prompt that weights do not say.

Training writes it beside the weights (``tinyllava.json``), export derives it from any other
checkpoint, the bundle's manifest carries it and the engine obeys it. Nothing is guessed at run
time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tinyllava_edge.errors import BundleError

FILE_NAME = "tinyllava.json"

Channel = Annotated[int, Field(ge=0, le=255)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptSemantics(_Frozen):
    """The template. A prompt is ``before_image IMAGE after_image [sensor line] question tail``.

    Each piece of text is tokenized by itself, so that a prefix that ends with the picture is the
    same for every question on it. ``answer_lead`` stands between tail and answer in training and
    is produced by the model at run time. ``unicode_form`` is what text is brought into before it
    is tokenized: Qwen2's and StableLM's tokenizers compose accents (``NFC``).
    """

    before_image: str
    after_image: str
    tail: str
    answer_lead: str = " "
    unicode_form: Literal["as_is", "NFC"] = "as_is"
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = Field(min_length=1)


class ImageSemantics(_Frozen):
    """From a picture to ``[3, size, size]`` float32: fit, resample, scale to 0..1, normalize.

    ``short_side`` is the length that the short side is scaled to before the middle is cut out,
    for processors that cut some of it away too (DINOv2's); None means ``size``.
    """

    size: Positive
    aspect: Literal["pad", "squash", "crop"]
    short_side: Positive | None = None
    fill_rgb: tuple[Channel, Channel, Channel] = (127, 127, 127)
    resample: Literal["bicubic", "bilinear", "lanczos", "nearest"] = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[Scale, Scale, Scale]


class TowerSemantics(_Frozen):
    """Which of the tower's outputs the connector reads.

    ``feature_layer`` indexes transformers' ``hidden_states`` (-1 is the last layer, before the
    closing layer norm); ``dropped_tokens`` leading tokens are cut off after that.
    """

    kind: str
    feature_layer: int
    dropped_tokens: int = Field(0, ge=0)
    activation: str


class ConnectorSemantics(_Frozen):
    """The translator between tower and language model, and how many tokens leave it."""

    kind: str
    activation: str
    image_tokens: Positive


class SensorSemantics(_Frozen):
    """How sensor readings are written between the picture and the question.

    ``item`` and ``stale_item`` may use ``{name}``, ``{value}``, ``{unit}`` (with its leading
    space, or empty) and ``{age_s}``.
    """

    lead: str = "Sensors: "
    item: str = "{name}={value}{unit}, {age_s} s ago"
    stale_item: str = "{name}={value}{unit}, {age_s} s ago (stale)"
    separator: str = "; "
    end: str = "\n"

    @field_validator("item", "stale_item")
    @classmethod
    def _can_be_filled_in(cls, form: str) -> str:
        try:
            form.format(name="", value="", unit="", age_s=0)
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"{form!r} cannot be filled in ({error})") from None
        return form


class Semantics(_Frozen):
    """All of it. Compared field by field in tests; a change of any field changes answers."""

    prompt: PromptSemantics
    image: ImageSemantics
    tower: TowerSemantics
    connector: ConnectorSemantics
    sensors: SensorSemantics = SensorSemantics()
    context_tokens: Positive
    notes: dict[str, str] = Field(default_factory=dict)


def read_semantics(folder: Path) -> Semantics:
    """Read ``tinyllava.json`` of a checkpoint folder. Raises ``BundleError`` in one line."""
    path = folder / FILE_NAME
    try:
        return Semantics.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(
            f"{folder}: no {FILE_NAME}; is this a folder that tinyllava-train wrote?"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: field {where or 'root'}: {first['msg']}") from None


def write_semantics(semantics: Semantics, folder: Path) -> None:
    """Write ``tinyllava.json`` into a checkpoint folder."""
    text = json.dumps(semantics.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")
