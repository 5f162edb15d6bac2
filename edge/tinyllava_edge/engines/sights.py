"""The image embeddings that an engine keeps, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SightCache:
    """Embeddings by picture key, at most ``max_bytes`` in all; the newest is always kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> NDArray[np.float32] | None:
        """The embeddings of a picture, now the most recently used, or None."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: str, embeddings: NDArray[np.float32]) -> None:
        """Keep embeddings and let go of the least recently used ones beyond the limit."""
        replaced = self._kept.pop(key, None)
        if replaced is not None:
            self._bytes -= replaced.nbytes
        self._kept[key] = embeddings
        self._bytes += embeddings.nbytes
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
