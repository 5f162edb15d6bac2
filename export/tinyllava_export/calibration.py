"""Pictures and questions on which an export is measured.

A checkpoint may bring its own (``calibration/`` with ``questions.json``); otherwise drawn ones
are used, which say less about answers but as much about arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tinyllava_edge.errors import PictureError
from tinyllava_edge.pictures import PictureLimits, decode_picture
from tinyllava_edge.prompt import Reading
from tinyllava_export.errors import CheckpointError

FOLDER = "calibration"
QUESTIONS_FILE = "questions.json"
DRAWN_QUESTIONS = ("What is in the picture?", "Is there anything red?", "How many are there?")
DRAWN_PICTURES = 4


@dataclass(frozen=True)
class CalibrationItem:
    """One picture with one question; items on the same picture share ``key``."""

    key: str
    picture: Image.Image
    question: str
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Items to measure on, and where they are from: ``checkpoint`` or ``drawn``."""

    origin: str
    items: tuple[CalibrationItem, ...]


class _ReadingText(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    value: str
    unit: str = ""
    age_s: int = 0
    stale: bool = False


class _QuestionText(BaseModel):
    model_config = ConfigDict(extra="forbid")

    picture: str
    question: str
    readings: tuple[_ReadingText, ...] = ()


_QUESTIONS = TypeAdapter(list[_QuestionText])


def read_calibration(checkpoint: Path) -> Calibration:
    """The checkpoint's own calibration, or drawn pictures where it has none.

    Raises ``CheckpointError`` for a list that cannot be read, is empty, or names a picture that
    is missing, damaged or outside the folder.
    """
    folder = checkpoint / FOLDER
    if not folder.is_dir():
        return drawn_calibration()
    entries = _read_entries(folder / QUESTIONS_FILE)
    pictures = {name: _read_picture(folder, name) for name in {e.picture for e in entries}}
    items = (
        CalibrationItem(
            key=entry.picture,
            picture=pictures[entry.picture],
            question=entry.question,
            readings=tuple(Reading(**reading.model_dump()) for reading in entry.readings),
        )
        for entry in entries
    )
    return Calibration("checkpoint", tuple(items))


def drawn_calibration() -> Calibration:
    """Gradients in different orientations and sizes, with a few questions each."""
    items = []
    for number in range(DRAWN_PICTURES):
        gradient = Image.linear_gradient("L").rotate(90 * number)
        channels = (gradient, Image.radial_gradient("L"), gradient.transpose(Image.Transpose(2)))
        picture = Image.merge("RGB", channels).resize((320, 180 + 60 * number))
        items += [CalibrationItem(f"drawn-{number}", picture, q) for q in DRAWN_QUESTIONS]
    return Calibration("drawn", tuple(items))


def _read_entries(path: Path) -> list[_QuestionText]:
    try:
        entries = _QUESTIONS.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; write it or remove the folder") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "root"
        raise CheckpointError(f"{path}: {where}: {first['msg']}; correct it") from None
    if not entries:
        raise CheckpointError(f"{path}: no questions; add some or remove the folder")
    return entries


def _read_picture(folder: Path, name: str) -> Image.Image:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder}: picture {name!r} is outside the folder; copy it in")
    try:
        return decode_picture(path.read_bytes(), PictureLimits())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy it again") from None
    except PictureError as error:
        raise CheckpointError(f"{path}: {error}") from None
