"""Engines: one contract, one file a backend, and a chooser.

``contract`` is the protocol, ``llama_cpp`` runs GGUF with an ONNX vision tower, ``fake`` answers
from a script, ``choose`` picks by what a bundle holds.
"""
