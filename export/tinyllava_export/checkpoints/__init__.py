"""Checkpoint formats: one file a format, each giving the same neutral ``Checkpoint``."""

from tinyllava_export.checkpoints.choose import open_checkpoint
from tinyllava_export.checkpoints.contract import Checkpoint, TextShape, VisionShape

__all__ = ["Checkpoint", "TextShape", "VisionShape", "open_checkpoint"]
