"""What an export is going to write: checked and sized before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from tinyllava_export.bundle_writer import refuse_existing
from tinyllava_export.checkpoints import Checkpoint, open_checkpoint
from tinyllava_export.errors import ExportError
from tinyllava_export.gguf.quantize import choose_quant
from tinyllava_export.gguf.tensor_layout import place_tensors
from tinyllava_export.gguf.vocabulary import read_vocabulary
from tinyllava_export.mmproj import mmproj_bytes, mmproj_obstacle, mmproj_type
from tinyllava_export.modules import expected_vision_tensors, require_tensors
from tinyllava_export.vision import QUANTIZATION_OF_BITS

TARGETS = ("gguf",)
LLM_FILE, VISION_FILE, MMPROJ_FILE = "llm.gguf", "vision.onnx", "mmproj.gguf"
CARD_FILE = "MODEL_CARD.md"
MAX_NAME = 100  # as in the manifest
EMBEDDING_TABLES = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class ExportOptions:
    """What the user asked for.

    ``quant`` None takes the usual type of ``bits``, ``threads`` None one a core.
    """

    out: Path
    target: str = "gguf"
    bits: int = 4
    quant: str | None = None
    vision_bits: int = 8
    mmproj: bool = True
    name: str | None = None
    force: bool = False
    max_kl: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class PlannedFile:
    """A file of the bundle with its estimated size."""

    role: str
    file: str
    bytes: int
    quantization: str | None


@dataclass(frozen=True)
class ExportPlan:
    """A checkpoint that can be exported as asked, and the files that will come of it.

    ``mmproj_left_out`` says why there will be no ``mmproj.gguf``; None where there will be one.
    """

    checkpoint: Checkpoint
    name: str
    quant: str
    vision_bits: int
    mmproj_left_out: str | None
    files: tuple[PlannedFile, ...]


def plan_export(folder: Path, options: ExportOptions) -> ExportPlan:
    """Check everything that can be checked without writing.

    Raises ``ExportError`` for options, ``CheckpointError`` for the checkpoint.
    """
    if options.target not in TARGETS:
        known = ", ".join(TARGETS)
        raise ExportError(f"target {options.target!r} is not known; known: {known}")
    quant = choose_quant(options.bits, options.quant)
    if options.vision_bits not in QUANTIZATION_OF_BITS:
        known = ", ".join(str(bits) for bits in QUANTIZATION_OF_BITS)
        raise ExportError(f"--vision-bits {options.vision_bits} is not known; known: {known}")
    name = options.name or options.out.resolve().name
    if len(name) > MAX_NAME:
        raise ExportError(f"name {name!r} has {len(name)} letters; give at most {MAX_NAME}")
    refuse_existing(options.out, force=options.force)
    checkpoint = open_checkpoint(folder)
    require_tensors(checkpoint)
    read_vocabulary(checkpoint)
    left_out = mmproj_obstacle(checkpoint) if options.mmproj else "not asked for"
    return ExportPlan(
        checkpoint=checkpoint,
        name=name,
        quant=quant,
        vision_bits=options.vision_bits,
        mmproj_left_out=left_out,
        files=tuple(_files(checkpoint, quant, options.vision_bits, with_mmproj=left_out is None)),
    )


def _files(
    checkpoint: Checkpoint, quant: str, vision_bits: int, *, with_mmproj: bool
) -> list[PlannedFile]:
    files = [
        PlannedFile("llm", LLM_FILE, _llm_bytes(checkpoint, quant), quant),
        PlannedFile(
            "vision",
            VISION_FILE,
            _vision_bytes(checkpoint, vision_bits),
            QUANTIZATION_OF_BITS[vision_bits],
        ),
    ]
    if with_mmproj:
        size = mmproj_bytes(checkpoint, vision_bits)
        files.append(PlannedFile("mmproj", MMPROJ_FILE, size, mmproj_type(vision_bits)))
    if checkpoint.card is not None:
        files.append(PlannedFile("card", CARD_FILE, checkpoint.card.stat().st_size, None))
    return files


def _llm_bytes(checkpoint: Checkpoint, quant: str) -> int:
    """Weights in their types (tables of embeddings in Q6_K below 6 bits, as llama.cpp does)."""
    bits = _bits_per_weight(quant)
    table_bits = max(bits, _bits_per_weight("Q6_K"))
    total = 0.0
    for placed in place_tensors(checkpoint):
        if len(placed.shape) < 2:
            total += 32 * prod(placed.shape)
        else:
            width = table_bits if placed.target in EMBEDDING_TABLES else bits
            total += width * prod(placed.shape)
    return int(total / 8) + len(checkpoint.tokenizer_json())


def _vision_bytes(checkpoint: Checkpoint, bits: int) -> int:
    """int8 covers the matrices of layers and connector; the rest stays float32."""
    total = 0
    for name in expected_vision_tensors(checkpoint):
        matrix = name.endswith(".weight") and len(checkpoint.tensors.shape(name)) == 2
        quantized = matrix and ".embeddings." not in f".{name}"
        width = bits if bits > 8 or quantized else 32
        total += width * prod(checkpoint.tensors.shape(name))
    return total // 8


def _bits_per_weight(quant: str) -> float:
    """Of the type that gives a file type its name: ``Q4_K_M`` is mostly ``Q4_K``."""
    stem = quant
    while stem not in GGMLQuantizationType.__members__:
        stem, _, rest = stem.rpartition("_")
        if not rest:
            raise ExportError(f"quant {quant!r} names no tensor type; use another --quant")
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[stem]]
    return float(8 * block_bytes / block)
