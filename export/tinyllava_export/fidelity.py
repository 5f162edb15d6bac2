"""What an export lost: the finished bundle, run by the edge's own engine, against its source.

Stage by stage, so that a difference can be placed: pixels, image embeddings, next-token
distribution, greedy answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyllava_edge.bundle import Bundle
from tinyllava_edge.engines.contract import Question
from tinyllava_edge.engines.llama_cpp import LlamaCppEngine
from tinyllava_edge.engines.options import EngineOptions
from tinyllava_edge.engines.vision import VisionEncoder
from tinyllava_edge.preprocess import pixels
from tinyllava_export.calibration import Calibration, CalibrationItem
from tinyllava_export.errors import FidelityError
from tinyllava_export.source import Source, source_pixels

MAX_TOKENS = 32
# More digits would differ with the number of threads, and a repeated export with them.
SIGNIFICANT_DIGITS = 3

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Fidelity:
    """Differences between source and bundle.

    ``pixels_max_abs_diff`` in normalized units; cosines over image tokens; KL(source || bundle)
    of the next-token distributions at the end of the prompt, in nats; agreements are shares of
    questions.
    """

    pixels_max_abs_diff: float
    vision_cosine_mean: float
    vision_cosine_min: float
    kl_mean: float
    kl_p99: float
    top1_agreement: float
    greedy_agreement: float
    pictures: int
    questions: int
    calibration: str

    def by_stage(self) -> dict[str, dict[str, float | str]]:
        """As the manifest holds it."""
        return {
            "pixels": {"max_abs_diff": _rounded(self.pixels_max_abs_diff)},
            "vision": {
                "cosine_mean": round(self.vision_cosine_mean, 5),
                "cosine_min": round(self.vision_cosine_min, 5),
            },
            "llm": {
                "kl_mean": _rounded(self.kl_mean),
                "kl_p99": _rounded(self.kl_p99),
                "top1_agreement": round(self.top1_agreement, 4),
                "greedy_agreement": round(self.greedy_agreement, 4),
            },
            "measured_on": {
                "calibration": self.calibration,
                "pictures": float(self.pictures),
                "questions": float(self.questions),
            },
        }


@dataclass(frozen=True)
class _Differences:
    """One question: KL divergence, same best token, same greedy answer."""

    kl: float
    same_top1: bool
    same_answer: bool


def measure_fidelity(
    bundle: Bundle,
    source: Source,
    calibration: Calibration,
    *,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> Fidelity:
    """Run source and bundle on every calibration item and compare them.

    ``progress`` is called with pictures done and pictures in all.
    """
    options = EngineOptions(threads=threads, check_memory=False)
    semantics = bundle.manifest.semantics
    encoder = VisionEncoder(bundle.path("vision"), semantics, threads=options.thread_count)
    by_picture = _by_picture(calibration)
    pixel_diffs: list[float] = []
    cosines: list[Floats] = []
    differences: list[_Differences] = []
    engine = LlamaCppEngine(bundle, options)
    try:
        for done, items in enumerate(by_picture):
            if progress is not None:
                progress(done, len(by_picture))
            seen = pixels(items[0].picture, semantics.image)
            meant = source_pixels(items[0].picture, semantics.image)
            embeds = source.see(meant)
            pixel_diffs.append(float(np.abs(seen - meant).max()))
            cosines.append(row_cosines(encoder.encode(seen), embeds))
            differences += _compare_answers(engine, source, embeds, items)
    finally:
        engine.close()
    kls = [difference.kl for difference in differences]
    return Fidelity(
        pixels_max_abs_diff=max(pixel_diffs),
        vision_cosine_mean=float(np.concatenate(cosines).mean()),
        vision_cosine_min=float(np.concatenate(cosines).min()),
        kl_mean=float(np.mean(kls)),
        kl_p99=float(np.quantile(kls, 0.99)),
        top1_agreement=float(np.mean([d.same_top1 for d in differences])),
        greedy_agreement=float(np.mean([d.same_answer for d in differences])),
        pictures=len(by_picture),
        questions=len(differences),
        calibration=calibration.origin,
    )


def require_fidelity(fidelity: Fidelity, max_kl: float | None) -> None:
    """Raise ``FidelityError`` where the mean KL is above ``max_kl``; None allows anything."""
    if max_kl is not None and not fidelity.kl_mean <= max_kl:
        raise FidelityError(
            f"mean KL to the source is {fidelity.kl_mean:.3g}, --max-kl allows {max_kl:g}; "
            f"nothing was written; use more bits (--quant Q5_K_M, --vision-bits 16)"
        )


def row_cosines(a: Floats, b: Floats) -> Floats:
    """Cosine of each row of ``a`` ``[n, d]`` with the same row of ``b``."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines: Floats = (a * b).sum(axis=-1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return cosines


def kl_divergence(source_logits: Floats, other_logits: Floats) -> float:
    """KL(source || other) of two distributions given as logits ``[vocabulary]``, in nats."""
    p, q = _log_softmax(source_logits), _log_softmax(other_logits)
    # Rounding can bring a divergence of nothing a hair below zero.
    return max(0.0, float((np.exp(p) * (p - q)).sum()))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits.astype(np.float64) - float(logits.max())
    result: Floats = shifted - np.log(np.exp(shifted).sum())
    return result


def _compare_answers(
    engine: LlamaCppEngine, source: Source, embeds: Floats, items: Sequence[CalibrationItem]
) -> list[_Differences]:
    """Every question on one picture, asked of both."""
    sight = engine.see(items[0].picture, items[0].key)
    questions = [
        Question(item.question, readings=item.readings, max_tokens=MAX_TOKENS) for item in items
    ]
    differences = []
    for question, reply in zip(questions, engine.ask(sight, questions), strict=True):
        expected = source.answer(
            embeds, question.text, question.readings, max_tokens=question.max_tokens
        )
        logits = engine.prompt_logits(sight, question)
        differences.append(
            _Differences(
                kl=kl_divergence(expected.logits, logits),
                same_top1=int(expected.logits.argmax()) == int(logits.argmax()),
                same_answer=expected.token_ids == reply.token_ids,
            )
        )
    return differences


def _by_picture(calibration: Calibration) -> list[list[CalibrationItem]]:
    groups: dict[str, list[CalibrationItem]] = {}
    for item in calibration.items:
        groups.setdefault(item.key, []).append(item)
    return list(groups.values())


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
