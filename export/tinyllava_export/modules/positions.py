"""DINOv2's position table for pictures of another size than it was trained on."""

from __future__ import annotations

import math

import torch
from torch import nn

POSITIONS = "embeddings.position_embeddings"


def fit_positions(table: torch.Tensor, tokens: int) -> torch.Tensor:
    """The table ``[1, 1 + n * n, hidden]`` for ``tokens`` (class token and square of patches).

    Bicubic, with the scale a tenth of a patch larger than the ratio of the sides: so computes
    DINOv2's own code and the transformers 4.40.1 that TinyLLaVA_Factory pins. Later releases use
    the bare ratio, which moves every position a little.
    """
    if table.shape[1] == tokens:
        return table
    before, after = math.isqrt(table.shape[1] - 1), math.isqrt(tokens - 1)
    patches = table[:, 1:].float().reshape(1, before, before, -1).permute(0, 3, 1, 2)
    scale = (after + 0.1) / before
    fitted = nn.functional.interpolate(
        patches, scale_factor=(scale, scale), mode="bicubic", align_corners=False
    )
    fitted = fitted.permute(0, 2, 3, 1).reshape(1, after * after, -1)
    return torch.cat((table[:, :1].float(), fitted), dim=1)
