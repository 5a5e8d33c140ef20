"""One update of the weights: a batch, forward and back in one or more passes, and a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RequestError
from .diagnosis import culprit
from .distributed import average_gradients, place, summed
from .examples import Batch
from .horizon import Horizon, first
from .objective import Objective, Told
from .optimise import clipped
from .precision import computed
from .protocol import LearningRule
from .recipe import Recipe
from .state import State


@dataclass(frozen=True)
class Done:
    """What an update saw, over all processes: its loss, samples, and those it had right."""

    loss: float
    shown: int
    correct: int
    stop: bool = False
    """Whether any process was asked to stop."""


@dataclass(frozen=True, eq=False)
class Updates:
    """How a recipe updates the weights."""

    recipe: Recipe
    rule: LearningRule
    objective: Objective

    def __call__(self, state: State, batch: Batch, stop: bool = False) -> Done:
        """One update; ``stop`` is told to the other processes.

        Raises RequestError (E_DIVERGED) that names where the first value lies that is not finite;
        no step has been made with it.
        """
        state.optimizer.zero_grad()
        loss, correct, tolds = 0.0, 0, []
        for piece in cut(batch, self.recipe.train.accumulate):
            told, weight = self.objective.on(piece), len(piece.labels) / len(batch.labels)
            found, outputs = self._pass(state, told, weight)
            loss += weight * found
            correct += int((outputs.argmax(1) == piece.labels).sum())
            tolds.append(told)
        shown, device = len(batch.labels), batch.labels.device
        loss, right, total, stopped = summed([loss / place().world, correct, shown, stop], device)
        self._finite(loss, state, batch)
        if not self.rule.online:
            self._step(state, batch)
        self.objective.settle(tolds)
        state.schedule.step()
        return Done(loss, int(total), int(right), stopped > 0)

    def _pass(self, state: State, told: Told, weight: float) -> tuple[float, Tensor]:
        """Forward and back; the loss and the mean outputs (B, K)."""
        settings, batch, total = self.recipe.train, told.batch, 0.0
        device, horizon = batch.labels.device, Horizon.of(self.recipe)
        outputs, steps = torch.zeros((), device=device), horizon.at(state.schedule.last_epoch)
        frames = first(batch.frames, steps)
        parts = self.rule(state.model, frames, steps, settings.norm, told.watch)
        for part in computed(parts, settings, device):
            loss = told(part)
            (loss * weight).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            outputs = outputs + part.share * part.mean.detach()
            if self.rule.online:
                self._step(state, batch)
                state.optimizer.zero_grad()
        return total, outputs

    def _step(self, state: State, batch: Batch) -> None:
        average_gradients(state.model)
        self._finite(clipped(state.model, self.recipe.train), state, batch)
        state.optimizer.step()
        if state.average is not None:
            state.average.update(state.model)

    def _finite(self, number: float, state: State, batch: Batch) -> None:
        if math.isfinite(number):
            return
        settings = self.recipe.train
        where = culprit(state.model, batch.frames, settings.steps, settings.norm)
        raise RequestError(
            "E_DIVERGED",
            f"epoch {len(state.epochs) + 1}, update {state.tally.updates + 1}: {where}; try a "
            f"smaller train.lr than {settings.lr}, or train.clip",
        )


def cut(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in so many pieces, nearly equal, in order."""
    axis = batch.frames.dim() - 4  # time stands in front of a coded image or a recording
    for frames, labels, targets in zip(
        batch.frames.tensor_split(parts, axis),
        batch.labels.tensor_split(parts),
        batch.targets.tensor_split(parts),
        strict=True,
    ):
        yield Batch(frames, labels, targets)
