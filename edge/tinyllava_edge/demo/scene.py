"""The pictures and questions that travel with the package, with the true answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tinyllava_edge.errors import TinyLlavaError
from tinyllava_edge.pictures import picture_key

_FOLDER = Path(__file__).parent


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SceneSensor(_Entry):
    """A sensor beside the panel and what it reads."""

    name: str
    value: str
    unit: str = ""


class SceneQuestion(_Entry):
    """A question with its true answer, and the sensors whose readings go into the prompt."""

    question: str
    kind: Literal["text", "yes_no", "choice"] = "text"
    choices: tuple[str, ...] = ()
    truth: str
    sensors: tuple[str, ...] = ()


class _Listed(_Entry):
    picture: str
    sensors: tuple[SceneSensor, ...] = ()
    questions: tuple[SceneQuestion, ...]


@dataclass(frozen=True)
class Scene:
    """A picture as its camera sends it, and what is asked about it."""

    name: str
    data: bytes
    sensors: tuple[SceneSensor, ...]
    questions: tuple[SceneQuestion, ...]

    @property
    def key(self) -> str:
        """The picture's sha256, as answers give it."""
        return picture_key(self.data)


def load_scenes(folder: Path = _FOLDER) -> list[Scene]:
    """Read ``questions.json`` and the ``pictures/`` it names, in order.

    Raises ``TinyLlavaError`` where the installation came without them.
    """
    path = folder / "questions.json"
    try:
        listed = TypeAdapter(list[_Listed]).validate_json(path.read_bytes())
        return [
            Scene(
                entry.picture,
                (folder / "pictures" / entry.picture).read_bytes(),
                entry.sensors,
                entry.questions,
            )
            for entry in listed
        ]
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TinyLlavaError(
            f"{path}: the demo's pictures are missing or damaged ({reason}); install "
            "tinyllava-edge again"
        ) from None
