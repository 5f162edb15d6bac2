"""Quantize a GGUF file with llama.cpp, and say what really came out."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from pathlib import Path
from typing import Any

import llama_cpp
from gguf import GGUFReader, LlamaFileType

from tinyllava_edge.engines.llama_log import last_error, route_log
from tinyllava_export.errors import ExportError
from tinyllava_export.gguf.importance import Importance
from tinyllava_export.gguf.language_model import Precision

QUANT_OF_BITS = {
    2: "Q2_K",
    3: "Q3_K_M",
    4: "Q4_K_M",
    5: "Q5_K_M",
    6: "Q6_K",
    8: "Q8_0",
    16: "F16",
    32: "F32",
}
FLOAT_QUANTS: dict[str, Precision] = {"F16": "F16", "BF16": "BF16", "F32": "F32"}
# Types that llama.cpp makes only with an importance matrix.
NEED_IMPORTANCE = {
    "IQ1_M",
    "IQ1_S",
    "IQ2_M",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
    "IQ3_XS",
    "IQ3_XXS",
    "Q2_K_S",
}
# Types for mixtures of experts, and one that llama.cpp reads but does not make.
UNAVAILABLE = {"MXFP4_MOE", "NVFP4"}
# Types so small that it matters which inputs are rounded well. Larger ones are made without, which
# spares the export a run of the source.
LOW_BITS = re.compile(r"I?Q[1-3]_")


def known_quants() -> dict[str, int]:
    """llama.cpp's file types by name (``Q4_K_M``), with their numbers in the file."""
    known = {
        kind.name.removeprefix("MOSTLY_"): int(kind)
        for kind in LlamaFileType
        if kind.name.startswith("MOSTLY_")
    }
    known["F32"] = int(LlamaFileType.ALL_F32)
    return {name: known[name] for name in sorted(known) if name not in UNAVAILABLE}


def choose_quant(bits: int, quant: str | None) -> str:
    """The file type asked for: ``quant`` where given, else the usual one of ``bits``.

    Raises ``ExportError`` with the known ones.
    """
    if quant is not None:
        if quant.upper() not in known_quants():
            raise ExportError(f"quant {quant!r} is not known; known: {', '.join(known_quants())}")
        return quant.upper()
    if bits not in QUANT_OF_BITS:
        known = ", ".join(f"{b} ({q})" for b, q in QUANT_OF_BITS.items())
        raise ExportError(f"--bits {bits} is not known; known: {known}, or name one with --quant")
    return QUANT_OF_BITS[bits]


def wants_importance(quant: str) -> bool:
    """Whether weights of this type are few enough bits for an importance matrix to matter."""
    return LOW_BITS.match(quant) is not None


def quantize(
    source: Path,
    destination: Path,
    quant: str,
    *,
    threads: int,
    importance: Importance | None = None,
) -> None:
    """Write ``source`` to ``destination`` with the weights in ``quant``.

    ``importance`` weighs the inputs of each matrix, by its name in the file. Rows that do not
    divide into a type's blocks get another type from llama.cpp; ``census`` says which. Raises
    ``ExportError`` if llama.cpp refuses, or for a type that needs an importance matrix without.
    """
    if importance is None and quant in NEED_IMPORTANCE:
        raise ExportError(f"{quant} is made with an importance matrix only; measure one first")
    route_log(llama_cpp)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = known_quants()[quant]
    params.nthread = threads
    entries = _entries(importance or {})
    if importance:
        params.imatrix = entries
    llama_cpp.llama_backend_init()
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(destination).encode(), params)
    if code != 0 or not destination.is_file():
        raise ExportError(
            f"llama.cpp could not make {quant} ({last_error() or code}); choose another --quant"
        )


def _entries(importance: Importance) -> ctypes.Array[Any]:
    """llama.cpp's form: an array of names and numbers that ends with an empty entry."""
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, numbers) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = numbers.size
    return entries


def census(path: Path) -> str:
    """The types of a GGUF file's tensors with their counts: ``q4_K 24, q6_K 5, f32 9``."""
    types = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
    ordered = sorted(types.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{_spelling(name)} {count}" for name, count in ordered)


def _spelling(name: str) -> str:
    """llama.cpp's spelling: lower case but for the K of the K-quants."""
    return name.lower().replace("_k", "_K")
