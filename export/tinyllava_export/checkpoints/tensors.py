"""Tensors of a checkpoint, read one at a time from safetensors files; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tinyllava_export.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its file, its name there, its shape and its stored type (``F32``)."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Tensors:
    """Tensors by neutral name. Holds places only; ``read`` brings one tensor into memory."""

    places: Mapping[str, Place]

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that start with ``prefix``, sorted."""
        return (name for name in sorted(self.places) if name.startswith(prefix))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self.places[name].shape

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor, in its stored type. Raises ``CheckpointError`` if it is damaged."""
        place = self.places[name]
        with _open(place.file) as file:
            tensor: torch.Tensor = file.get_tensor(place.key)
        return tensor

    def __contains__(self, name: str) -> bool:
        return name in self.places


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder: one, or the shards that its index names.

    Raises ``CheckpointError`` where there are none, or where a shard is missing.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: neither {WEIGHTS_FILE} nor {INDEX_FILE}; save the model with "
            f"safe_serialization=True"
        )
    files = sorted({folder / name for name in _shard_names(index)})
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{folder}: shard {file.name} is missing; copy it again")
    return files


def _shard_names(index: Path) -> list[str]:
    try:
        names = list(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: no valid weight_map; save the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} is no plain file name")
    return names


def index_tensors(files: list[Path], neutral_name: Callable[[str], str]) -> Tensors:
    """List the tensors of ``files`` under the names that ``neutral_name`` gives them."""
    places: dict[str, Place] = {}
    for path in files:
        with _open(path) as file:
            for key in file.keys():  # noqa: SIM118 - a safetensors handle is not iterable
                piece = file.get_slice(key)
                place = Place(path, key, tuple(piece.get_shape()), str(piece.get_dtype()))
                name = neutral_name(key)
                if name in places:
                    raise CheckpointError(f"{path}: {key} and {places[name].key} are both {name}")
                places[name] = place
    return Tensors(places)


def fingerprint(files: list[Path]) -> str:
    """sha256 over the names and contents of ``files``, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy or save it again") from None
