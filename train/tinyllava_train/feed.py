"""The order of the data: which pictures and questions each step sees, a pure function of the step.

So a resumed run goes on exactly where the killed one would have.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tinyllava_train.batches import Batch, pack
from tinyllava_train.choice import TurnChoice
from tinyllava_train.conversations import Encoder, Sample
from tinyllava_train.pictures import PixelStore

MOST_SHIFT = 2
"""Training pictures are moved by up to this many pixels, so that no place is learned by heart."""


class Dataset:
    """Samples with their pixels and the encoder that makes token ids of them."""

    def __init__(self, samples: Sequence[Sample], encoder: Encoder, cache: Path) -> None:
        self.samples = samples
        self.encoder = encoder
        self.semantics = encoder.semantics
        self._pixels = PixelStore([s.image for s in samples], self.semantics.image, cache)

    def order(self, step: int, batch: int, seed: int) -> list[int]:
        """Indices of the pictures of a step; each epoch is a new permutation."""
        total = len(self.samples)
        first = step * batch
        indices = []
        for place in range(first, first + batch):
            epoch, offset = divmod(place, total)
            indices.append(int(_permutation(total, epoch, seed)[offset]))
        return indices

    def pixels(self, indices: Sequence[int], shift_seed: int | None) -> Tensor:
        """Normalized pixels of some pictures, shifted by chance if a seed is given."""
        if shift_seed is None:
            return self._pixels.rows(indices)
        generator = np.random.default_rng(shift_seed)
        shifts = generator.integers(-MOST_SHIFT, MOST_SHIFT + 1, (len(indices), 2))
        return self._pixels.rows(indices, shifts)

    def batch(
        self,
        indices: Sequence[int],
        choose: TurnChoice,
        *,
        seed: int,
        with_pictures: bool = True,
        shifted: bool = True,
    ) -> Batch:
        """Pack the chosen turns of some pictures."""
        tokenizer = self.encoder.tokenizer
        conversations = [
            [self.encoder.turn(turn) for turn in choose(self.samples[i], Random(f"{seed} {i}"))]
            for i in indices
        ]
        return pack(
            conversations,
            prefix=self.encoder.prefix,
            image_token=int(tokenizer.convert_tokens_to_ids("<image>")),
            image_tokens=self.semantics.connector.image_tokens,
            pad_token=int(tokenizer.pad_token_id),
            pixels=self.pixels(indices, seed if shifted else None) if with_pictures else None,
        )


@functools.lru_cache(maxsize=2)
def _permutation(total: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(total)
