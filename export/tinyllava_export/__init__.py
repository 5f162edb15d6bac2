"""Checkpoint folder in, verified bundle folder out."""

__version__ = "0.1.0"
