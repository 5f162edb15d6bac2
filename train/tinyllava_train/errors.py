"""The errors of the training package; each message is one line with the next step."""

from __future__ import annotations

from tinyllava_edge.errors import TinyLlavaError


class DataError(TinyLlavaError):
    """A dataset that cannot be trained on as it is; names the sample."""


class RecipeError(TinyLlavaError):
    """A recipe that is wrong; names the field and the value seen."""
