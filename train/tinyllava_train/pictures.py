"""Pixels of a dataset, prepared once by edge's own preprocessing and kept as bytes on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tinyllava_edge.preprocess import pixels
from tinyllava_edge.semantics import ImageSemantics
from tinyllava_train.progress import track


class PixelStore:
    """``[N, 3, S, S]`` uint8 in a memory-mapped file; rows come back normalized, as float32.

    Fitting and resampling work on bytes, so keeping bytes loses nothing.
    """

    def __init__(self, paths: Sequence[Path], image: ImageSemantics, cache: Path) -> None:
        self._mean = torch.tensor(image.mean).view(3, 1, 1)
        self._std = torch.tensor(image.std).view(3, 1, 1)
        shape = (len(paths), 3, image.size, image.size)
        if not cache.exists():
            _fill(paths, image, cache, shape)
        self._bytes = np.load(cache, mmap_mode="r")
        if self._bytes.shape != shape:
            raise ValueError(f"{cache}: holds {self._bytes.shape}, expected {shape}; remove it")

    def rows(self, indices: Sequence[int], shifts: NDArray[np.int64] | None = None) -> Tensor:
        """Normalized pictures ``[B, 3, S, S]``, each moved by (down, right) pixels if asked."""
        rows = self._bytes[np.asarray(indices)]
        if shifts is not None:
            rows = np.stack(
                [_shifted(row, *shift) for row, shift in zip(rows, shifts, strict=True)]
            )
        return (torch.from_numpy(rows).float() / 255 - self._mean) / self._std


def _fill(
    paths: Sequence[Path], image: ImageSemantics, cache: Path, shape: tuple[int, ...]
) -> None:
    partial = cache.with_suffix(".partial")
    store = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (image.mean, image.std))

    def prepare(index: int) -> None:
        with Image.open(paths[index]) as opened:
            normalized = pixels(opened.convert("RGB"), image)
        store[index] = np.rint((normalized * std + mean) * 255).astype(np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in track(pool.map(prepare, range(len(paths))), "preparing pixels", len(paths)):
            pass
    store.flush()
    partial.replace(cache)


def _shifted(row: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """Move a picture, repeating its border."""
    size = row.shape[-1]
    ys = np.clip(np.arange(size) - down, 0, size - 1)
    xs = np.clip(np.arange(size) - right, 0, size - 1)
    return row[:, ys][:, :, xs]
