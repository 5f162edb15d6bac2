"""The export from end to end: plan, write, measure, put in place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tinyllava_devices.footprint import MIB, kv_kib_per_token, vision_activation_mib
from tinyllava_edge.bundle import open_bundle
from tinyllava_edge.manifest import Footprint, Manifest
from tinyllava_edge.manifest import Source as ManifestSource
from tinyllava_export import __version__
from tinyllava_export.bundle_writer import BundleDraft, drafted_bundle
from tinyllava_export.calibration import Calibration, read_calibration
from tinyllava_export.checkpoints import Checkpoint
from tinyllava_export.fidelity import Fidelity, measure_fidelity, require_fidelity, row_cosines
from tinyllava_export.gguf.importance import measure_importance
from tinyllava_export.gguf.language_model import lossless_precision, write_language_model
from tinyllava_export.gguf.quantize import FLOAT_QUANTS, census, quantize, wants_importance
from tinyllava_export.mmproj import mmproj_caveat, mmproj_type, write_mmproj
from tinyllava_export.mmproj_features import mmproj_features
from tinyllava_export.plan import (
    CARD_FILE,
    LLM_FILE,
    MMPROJ_FILE,
    VISION_FILE,
    ExportOptions,
    ExportPlan,
    plan_export,
)
from tinyllava_export.source import Source, source_pixels
from tinyllava_export.vision import write_vision

MMPROJ_COSINE = 0.999
"""Below this, llama.cpp is held to compute something else than the source; float16 gives 0.9999."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class ExportedBundle:
    """A bundle in its place, its manifest and what was measured."""

    folder: Path
    manifest: Manifest
    fidelity: Fidelity


def export_bundle(folder: Path, options: ExportOptions, report: Report) -> ExportedBundle:
    """Export a checkpoint folder to a bundle folder, whole or not at all.

    ``report`` is told what is being done, a line at a time. The same checkpoint and options give
    the same bytes. Raises ``CheckpointError``, ``ExportError``, or ``FidelityError`` where
    ``options.max_kl`` is exceeded.
    """
    plan = plan_export(folder, options)
    calibration = read_calibration(folder)
    threads = options.threads or os.cpu_count() or 1
    with drafted_bundle(options.out, force=options.force) as draft:
        _write_llm(plan, draft, calibration, report, threads)
        _write_vision(plan, draft, report)
        if plan.checkpoint.card is not None:
            shutil.copyfile(plan.checkpoint.card, draft.folder / CARD_FILE)
            draft.add("card", CARD_FILE)
        source = Source(plan.checkpoint)
        mmproj = _write_mmproj(plan, source, draft, calibration.items[0].picture, report)
        manifest = _manifest(plan, draft)
        draft.write_manifest(manifest)
        report(f"measuring on {len(calibration.items)} questions ({calibration.origin})")
        fidelity = measure_fidelity(open_bundle(draft.folder), source, calibration, threads=threads)
        require_fidelity(fidelity, options.max_kl)
        stages = fidelity.by_stage() | {"mmproj": mmproj}
        manifest = manifest.model_copy(update={"fidelity": stages})
        draft.write_manifest(manifest)
    return ExportedBundle(options.out, manifest, fidelity)


def _write_llm(
    plan: ExportPlan, draft: BundleDraft, calibration: Calibration, report: Report, threads: int
) -> None:
    target = draft.folder / LLM_FILE
    if plan.quant in FLOAT_QUANTS:
        precision = FLOAT_QUANTS[plan.quant]
        report(f"writing {LLM_FILE} in {precision}")
        write_language_model(plan.checkpoint, target, name=plan.name, precision=precision)
        draft.add("llm", LLM_FILE, f"{plan.quant} ({census(target)})")
        return
    importance = None
    if wants_importance(plan.quant):
        report(f"measuring which weights matter ({calibration.origin} pictures)")
        importance = measure_importance(plan.checkpoint, Source(plan.checkpoint), calibration)
    precision = lossless_precision(plan.checkpoint)
    full = draft.scratch / f"llm-{precision.lower()}.gguf"
    report(f"writing the language model in {precision}")
    write_language_model(plan.checkpoint, full, name=plan.name, precision=precision)
    report(f"quantizing {LLM_FILE} to {plan.quant}")
    quantize(full, target, plan.quant, threads=threads, importance=importance)
    full.unlink()
    weighed = "" if importance is None else f"; importance of {calibration.origin} pictures"
    draft.add("llm", LLM_FILE, f"{plan.quant} ({census(target)}{weighed})")


def _write_vision(plan: ExportPlan, draft: BundleDraft, report: Report) -> None:
    report(f"writing {VISION_FILE} with {plan.vision_bits} bits")
    target = draft.folder / VISION_FILE
    quantization = write_vision(plan.checkpoint, target, bits=plan.vision_bits)
    draft.add("vision", VISION_FILE, quantization)


def _write_mmproj(
    plan: ExportPlan, source: Source, draft: BundleDraft, picture: Image.Image, report: Report
) -> dict[str, float | str]:
    """Write ``mmproj.gguf`` if llama.cpp computes the source's features with it.

    Gives what the manifest says of it: the least cosine of a token, or why it was left out.
    """
    if plan.mmproj_left_out is not None:
        return {"left_out": plan.mmproj_left_out}
    report(f"writing {MMPROJ_FILE} and asking llama.cpp for its features")
    target = draft.folder / MMPROJ_FILE
    checkpoint, bits = plan.checkpoint, plan.vision_bits
    write_mmproj(checkpoint, target, name=plan.name, bits=bits)
    # A square of the right size: how llama.cpp fits a picture to it is a matter of its own.
    size = checkpoint.semantics.image.size
    square = picture.convert("RGB").resize((size, size))
    features = mmproj_features(
        draft.folder / LLM_FILE, target, square, hidden=checkpoint.text.hidden
    )
    expected = source.see(source_pixels(square, checkpoint.semantics.image))
    cosine = round(float(row_cosines(features, expected).min()), 4)
    if cosine < MMPROJ_COSINE:
        target.unlink()
        return {"left_out": f"llama.cpp's features have a cosine of {cosine} to the source's"}
    draft.add("mmproj", MMPROJ_FILE, mmproj_type(bits))
    caveat = mmproj_caveat(checkpoint)
    return {"cosine_min": cosine} | ({"caveat": caveat} if caveat else {})


def _manifest(plan: ExportPlan, draft: BundleDraft) -> Manifest:
    return Manifest(
        name=plan.name,
        source=ManifestSource(format=plan.checkpoint.format, sha256=plan.checkpoint.sha256),
        semantics=plan.checkpoint.semantics,
        components=tuple(draft.components),
        footprint=_footprint(plan.checkpoint, draft),
        licence=plan.checkpoint.licence,
        created_with=f"tinyllava-export {__version__}",
    )


def _footprint(checkpoint: Checkpoint, draft: BundleDraft) -> Footprint:
    weights = sum(part.bytes for part in draft.components if part.role in ("llm", "vision"))
    text, vision = checkpoint.text, checkpoint.vision
    return Footprint(
        weights_mib=round(weights / MIB, 3),
        kv_kib_per_token=kv_kib_per_token(
            layers=text.layers, kv_heads=text.kv_heads, head_dim=text.head_dim
        ),
        vision_activation_mib=round(
            vision_activation_mib(
                tokens=vision.tokens,
                hidden=vision.hidden,
                intermediate=vision.intermediate,
                heads=vision.heads,
            ),
            3,
        ),
    )
