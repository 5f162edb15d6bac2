"""The exceptions of the export package, below the edge's ``TinyLlavaError``.

TinyLlavaError
├── CheckpointError   a checkpoint that cannot be read, or that contradicts itself
├── ExportError       a bundle that cannot be written
└── FidelityError     a bundle that strays further from its source than allowed
"""

from __future__ import annotations

from tinyllava_edge.errors import TinyLlavaError


class CheckpointError(TinyLlavaError):
    """The checkpoint is missing, damaged, of an unknown kind, or contradicts itself."""


class ExportError(TinyLlavaError):
    """The bundle cannot be written as asked."""


class FidelityError(TinyLlavaError):
    """The finished bundle strays further from its source than the caller allows."""
