"""One training stage: batches, gradients, log, checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from tinyllava_train.choice import questions
from tinyllava_train.feed import Dataset
from tinyllava_train.journal import Journal
from tinyllava_train.objectives import Objective, make_objective, next_token_loss
from tinyllava_train.optimizer import StageOptimizer
from tinyllava_train.progress import StepReport
from tinyllava_train.recipe import Stage
from tinyllava_train.state import RunState, save_state

_LOG_EVERY = 25
_VALIDATE_EVERY = 250
_SAVE_EVERY_S = 240.0


@dataclass(frozen=True)
class StageRun:
    """What a stage works on. ``number`` is its place in the recipe, ``seed`` the recipe's."""

    stage: Stage
    number: int
    steps: int
    seed: int
    model: LlavaForConditionalGeneration
    train: Dataset
    validation: Dataset
    out: Path


def trainable(model: LlavaForConditionalGeneration, stage: Stage) -> list[tuple[str, nn.Parameter]]:
    """Freeze everything but the parts that the stage trains; their parameters by name."""
    inner = model.model
    parts = {
        "vision_tower": inner.vision_tower,
        "connector": inner.multi_modal_projector,
        "language_model": inner.language_model,
    }
    model.requires_grad_(False)
    named: list[tuple[str, nn.Parameter]] = []
    for part in stage.trains:
        parts[part].requires_grad_(True)
        named += [(f"{part}.{name}", p) for name, p in parts[part].named_parameters()]
    return named


def run_stage(run: StageRun, resumed: RunState | None, journal: Journal) -> None:
    """Train the stage to its end, from the resumed step where there is one."""
    torch.manual_seed(run.seed + run.number)
    named = trainable(run.model, run.stage)
    objective = make_objective(run.stage, run.model, run.train)
    objective.extra.to(run.model.device)
    optimizer = StageOptimizer([*named, *objective.extra.named_parameters()], run.stage)
    first = 0
    if resumed is not None:
        objective.extra.load_state_dict(resumed.extra)
        optimizer.load(resumed.optimizer)
        first = resumed.step
    saved = time.monotonic()
    with StepReport(run.stage.name, first, run.steps) as report:
        losses: list[float] = []
        for step in range(first, run.steps):
            losses.append(_train_step(run, objective, optimizer, step))
            report.advance(losses[-1])
            done = step + 1
            if done % _LOG_EVERY == 0 or done == run.steps:
                _log(run, journal, done, sum(losses) / len(losses), report.seconds)
                losses = []
            if time.monotonic() - saved > _SAVE_EVERY_S and done < run.steps:
                state = (objective.extra.state_dict(), optimizer.state())
                save_state(run.out, RunState(run.number, done, run.model.state_dict(), *state))
                saved = time.monotonic()


def _train_step(run: StageRun, objective: Objective, optimizer: StageOptimizer, step: int) -> float:
    # One seed a step for the order, the choice of questions and the shifts.
    seed = run.seed * 1_000_003 + run.number * 100_003 + step
    indices = run.train.order(step, run.stage.batch, run.seed + run.number)
    device = run.model.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        loss = objective.loss(run.train, indices, seed, step / run.steps)
    loss.backward()
    optimizer.step(step, run.steps)
    return float(loss.detach())


def _log(run: StageRun, journal: Journal, done: int, loss: float, seconds: float) -> None:
    row: dict[str, float] = {"loss": round(loss, 5), "seconds": round(seconds, 1)}
    measured = run.stage.objective == "conversation"
    if measured and (done % _VALIDATE_EVERY == 0 or done == run.steps):
        row |= validate(run.model, run.validation)
    journal.write(stage=run.stage.name, stage_number=run.number, step=done, **row)


@torch.no_grad()
def validate(model: LlavaForConditionalGeneration, dataset: Dataset) -> dict[str, float]:
    """Loss and share of right tokens on the first validation pictures."""
    indices = list(range(min(32, len(dataset.samples))))
    batch = dataset.batch(indices, questions, seed=0, shifted=False).to(model.device)
    loss, right = next_token_loss(model, batch)
    return {
        "validation_loss": round(float(loss), 5),
        "validation_tokens_right": round(float(right.float().mean()), 4),
    }
