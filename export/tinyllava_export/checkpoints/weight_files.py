"""Weight files of a folder: safetensors or PyTorch's own, in one piece or in shards.

No code in a file is ever run: safetensors holds none, PyTorch's files are read with
``weights_only``. Data stays on disk until a tensor is read.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tinyllava_export.checkpoints.tensors import TensorSource
from tinyllava_export.errors import CheckpointError

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
INDEX_ENDING = ".index.json"
HASH_BLOCK_BYTES = 1 << 20
DTYPE_WORDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class SafetensorsPlace:
    """A tensor in a safetensors file, under its name there."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> torch.Tensor:
        """Read it. Raises ``CheckpointError`` if the file is damaged."""
        with _open_safetensors(self.file) as file:
            tensor: torch.Tensor = file.get_tensor(self.key)
        return tensor


class PickledFile:
    """A file written by ``torch.save``, mapped into memory once and read page by page."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The tensors, still on disk. Raises ``CheckpointError`` for anything else in the file."""
        content = self._load()
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.path}: holds no table of tensors; save the model again")
        for key, value in content.items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise CheckpointError(
                    f"{self.path}: {key!r:.80} is no tensor; save the state_dict alone"
                )
        return content

    def _load(self) -> object:
        if not zipfile.is_zipfile(self.path):
            raise CheckpointError(
                f"{self.path}: damaged, or written by PyTorch before 1.6; copy or save it again"
            )
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{self.path}: holds more than tensors, which could run code; nothing was run: "
                f"save the state_dict alone"
            ) from None
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
            raise CheckpointError(
                f"{self.path}: damaged ({_first_line(error)}); copy or save it again"
            ) from None


@dataclass(frozen=True)
class PickledPlace:
    """A tensor in a file of PyTorch's, under its name there."""

    source: PickledFile
    key: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> torch.Tensor:
        """Read it into its own memory."""
        return self.source.tensors[self.key].detach().clone()


def find_weight_files(folder: Path, names: tuple[str, ...] = MODEL_FILES) -> list[Path]:
    """The weight files of a folder: the first of ``names`` found, or the shards of its index.

    Raises ``CheckpointError`` where there are none, or where a shard is missing.
    """
    for name in names:
        single, index = folder / name, folder / f"{name}{INDEX_ENDING}"
        if single.is_file():
            return [single]
        if index.is_file():
            return _shards(folder, index)
    raise CheckpointError(
        f"{folder}: no weights ({' or '.join(names)}); copy them, or save the model again with "
        f"safe_serialization=True"
    )


def index_file(path: Path) -> dict[str, TensorSource]:
    """The tensors of one weight file by the names they have there."""
    return dict(_safetensors(path) if path.suffix == ".safetensors" else _pickled(path))


def index_files(
    files: list[Path], neutral_name: Callable[[str], str | None]
) -> dict[str, TensorSource]:
    """The tensors of ``files`` under the names that ``neutral_name`` gives them; None leaves out.

    Raises ``CheckpointError`` where two tensors would have one name.
    """
    places: dict[str, TensorSource] = {}
    origin: dict[str, str] = {}
    for path in files:
        for key, place in index_file(path).items():
            name = neutral_name(key)
            if name is None:
                continue
            if name in places:
                raise CheckpointError(f"{path}: {key} and {origin[name]} are both {name}")
            places[name], origin[name] = place, key
    return places


def fingerprint(files: list[Path], *, root: Path) -> str:
    """sha256 over the paths below ``root`` and the contents of ``files``, in their order."""
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        digest.update(f"{name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _shards(folder: Path, index: Path) -> list[Path]:
    files = sorted({folder / name for name in _shard_names(index)})
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{folder}: shard {file.name} is missing; copy it again")
    return files


def _shard_names(index: Path) -> list[str]:
    try:
        names = list(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index}: no valid weight_map; save the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} is no plain file name")
    return names


def _safetensors(path: Path) -> Iterator[tuple[str, TensorSource]]:
    with _open_safetensors(path) as file:
        for key in file.keys():  # noqa: SIM118 - a safetensors handle is not iterable
            piece = file.get_slice(key)
            yield (
                key,
                SafetensorsPlace(path, key, tuple(piece.get_shape()), str(piece.get_dtype())),
            )


def _pickled(path: Path) -> Iterator[tuple[str, TensorSource]]:
    source = PickledFile(path)
    for key, tensor in source.tensors.items():
        word = DTYPE_WORDS.get(tensor.dtype)
        if word is None:
            raise CheckpointError(f"{path}: tensor {key} is of type {tensor.dtype}; save floats")
        yield key, PickledPlace(source, key, tuple(tensor.shape), word)


def _open_safetensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy or save it again") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
