"""Pack several questions on one picture into a sequence in which none sees the others.

Each question attends to the prefix (system text and picture) and to itself, and its positions
start right after the picture: the model learns exactly what the engine computes when it shares
the picture's KV cache among questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllava_train.conversations import EncodedTurn

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """``L`` is the longest sequence. ``mask`` is additive, 0 where attention is allowed."""

    input_ids: Tensor  # [B, L] int64, image token id at the picture's places
    labels: Tensor  # [B, L] int64, the token that position should predict next, or IGNORED
    positions: Tensor  # [B, L] int64
    mask: Tensor  # [B, 1, L, L] float32
    pixels: Tensor | None  # [B, 3, S, S] float32; None for text only

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        pixels = None if self.pixels is None else self.pixels.to(device, non_blocking=True)
        return Batch(
            self.input_ids.to(device),
            self.labels.to(device),
            self.positions.to(device),
            self.mask.to(device),
            pixels,
        )


def pack(
    conversations: Sequence[Sequence[EncodedTurn]],
    *,
    prefix: Sequence[int],
    image_token: int,
    image_tokens: int,
    pad_token: int,
    pixels: Tensor | None,
) -> Batch:
    """Pack each picture's turns into one row; rows are padded to a common length."""
    head = [*prefix, *([image_token] * (image_tokens if pixels is not None else 0))]
    rows = [_row(turns, head) for turns in conversations]
    length = -(-max(len(ids) for ids, *_ in rows) // 8) * 8
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_token, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1, dtype=torch.long)
    for row, (ids, targets, places, members) in enumerate(rows):
        size = len(ids)
        input_ids[row, :size] = torch.tensor(ids)
        labels[row, :size] = torch.tensor(targets)
        positions[row, :size] = torch.tensor(places)
        segments[row, :size] = torch.tensor(members)
    return Batch(input_ids, labels, positions, _mask(segments), pixels)


def _row(
    turns: Sequence[EncodedTurn], head: list[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """One picture's ids, next-token labels, positions and segments (0 prefix, 1.. turns)."""
    ids, labels = list(head), [IGNORED] * len(head)
    positions, segments = list(range(len(head))), [0] * len(head)
    for number, turn in enumerate(turns, 1):
        tokens = turn.prompt + turn.answer[:-1]
        ids += tokens
        labels += [IGNORED] * (len(turn.prompt) - 1) + turn.answer
        positions += range(len(head), len(head) + len(tokens))
        segments += [number] * len(tokens)
    return ids, labels, positions, segments


def _mask(segments: Tensor) -> Tensor:
    """Additive attention mask from segment numbers; padding attends to itself only."""
    length = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = causal & ((key == query) | (key == 0)) & (key >= 0)
    allowed |= torch.eye(length, dtype=torch.bool)
    mask = torch.zeros(allowed.shape, dtype=torch.float32)
    mask.masked_fill_(~allowed, torch.finfo(torch.float32).min)
    return mask[:, None]
