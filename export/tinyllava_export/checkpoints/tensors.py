"""Tensors of a checkpoint by neutral name, each brought into memory when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from tinyllava_export.errors import CheckpointError


class TensorSource(Protocol):
    """A tensor that can be had: stored in a file, or computed from tensors that are.

    ``dtype`` is safetensors' word for the narrowest type that holds its numbers (``F16``).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without reading any data."""
        ...

    @property
    def dtype(self) -> str:
        """``F32``, ``F16``, ``BF16``, ``I8``, ..."""
        ...

    def read(self) -> torch.Tensor:
        """Bring the tensor into memory. Raises ``CheckpointError`` if it is damaged."""
        ...


@dataclass(frozen=True)
class Tensors:
    """Tensors by neutral name. Holds places only; ``read`` brings one tensor into memory."""

    places: Mapping[str, TensorSource]

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that start with ``prefix``, sorted."""
        return (name for name in sorted(self.places) if name.startswith(prefix))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self.places[name].shape

    def dtype(self, name: str) -> str:
        """The narrowest type that holds the tensor's numbers, without reading it."""
        return self.places[name].dtype

    def read(self, name: str) -> torch.Tensor:
        """Read or compute one tensor.

        Raises ``CheckpointError`` if it is damaged or holds NaN or infinite numbers.
        """
        tensor = self.places[name].read()
        _require_finite(name, tensor)
        return tensor

    def __contains__(self, name: str) -> bool:
        return name in self.places


@dataclass(frozen=True)
class Zeros:
    """A tensor that the layout leaves out and that does nothing when it is zero."""

    shape: tuple[int, ...]
    dtype: str = "F16"

    def read(self) -> torch.Tensor:
        """Zeros in float32."""
        return torch.zeros(self.shape)


@dataclass(frozen=True)
class FirstRows:
    """The first ``rows`` rows of another tensor, such as a table of embeddings without padding."""

    whole: TensorSource
    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """As the whole, but for the rows."""
        return (min(self.rows, self.whole.shape[0]), *self.whole.shape[1:])

    @property
    def dtype(self) -> str:
        """As the whole."""
        return self.whole.dtype

    def read(self) -> torch.Tensor:
        """The rows alone, in their own memory."""
        return self.whole.read()[: self.rows].clone()


def _require_finite(name: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point() or not tensor.numel():
        return
    # The extremes are NaN or infinite when any number is, and need no second copy.
    low, high = tensor.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"tensor {name}: {bad} of {tensor.numel()} numbers are NaN or infinite; training "
            f"diverged or the file is damaged: use an earlier checkpoint"
        )
