"""The bundle's table of contents: every file with its size and hash, and what they mean.

``manifest.json`` is text from outside, so it is read with pydantic; unknown fields are refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyllava_edge.errors import BundleError
from tinyllava_edge.semantics import Semantics

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "manifest.json"
SCHEMA_VERSION = 1
MAX_BYTES = 1 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """The checkpoint that the bundle was made from; ``sha256`` is over its weights."""

    format: str
    sha256: Sha256


class Component(_Frozen):
    """One file of the bundle.

    ``role`` says what it is for: ``llm``, ``vision``, ``card``, ... and is unique in a bundle.
    ``file`` is relative to the bundle, with forward slashes. ``quantization`` is free text for
    people (``Q4_K_M``, ``int8``); None for files without weights.
    """

    role: Role
    file: str = Field(min_length=1, max_length=255)
    bytes: int = Field(ge=0)
    sha256: Sha256
    quantization: str | None = None


class Footprint(_Frozen):
    """What a planner needs to know about memory."""

    weights_mib: NotNegative
    kv_kib_per_token: NotNegative
    vision_activation_mib: NotNegative


class Manifest(_Frozen):
    """What ``manifest.json`` holds.

    ``fidelity`` holds what the export measured against the source, by stage
    (``{"vision": {"cosine": 0.9998}, "llm": {"top1_agreement": 0.99}}``).
    """

    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    name: str = Field(min_length=1, max_length=100)
    source: Source
    semantics: Semantics
    components: tuple[Component, ...] = Field(min_length=1)
    fidelity: dict[str, dict[str, float | str]] = Field(default_factory=dict)
    footprint: Footprint
    licence: str
    created_with: str


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Read a manifest from its JSON text; ``where`` names it in errors.

    Raises ``BundleError`` in one line: no JSON, a newer schema, or the first wrong field.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BundleError(f"{where}: not valid JSON; export the bundle again") from None
    _refuse_newer_schema(data, where)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "root"
        raise BundleError(
            f"{where}: field {field}: {first['msg']}; export the bundle again"
        ) from None


def _refuse_newer_schema(data: object, where: str) -> None:
    """Say "upgrade" before saying which of the newer schema's fields is unknown."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{where}: schema version {version}, this tinyllava-edge reads up to "
            f"{SCHEMA_VERSION}; upgrade with `pip install -U tinyllava-edge`"
        )


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of a bundle folder. Raises ``BundleError`` in one line."""
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{folder}: no {FILE_NAME}; give the folder that tinyllava-export wrote"
        ) from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    if len(text) > MAX_BYTES:
        raise BundleError(f"{path}: larger than {MAX_BYTES >> 10} KiB; export the bundle again")
    return parse_manifest(text, str(path))


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.json`` into a folder."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")
