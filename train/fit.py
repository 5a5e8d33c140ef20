"""The training loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import RequestError
from .evaluate import score
from .examples import Batches
from .objective import Objective
from .optimise import course, optimiser
from .progress import Progress
from .protocol import LearningRule
from .recipe import Recipe, TrainPart


@dataclass(frozen=True)
class Epoch:
    """One line of the history; accuracies 0 to 1, the training one over the mirrored batches."""

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    seconds: float

    def __str__(self) -> str:
        checked = self.validation_accuracy
        return (
            f"epoch {self.epoch}: loss {self.loss:.4f}, train {self.train_accuracy:.2%}"
            + (f", validation {checked:.2%}" if checked is not None else "")
            + f", {self.seconds:.1f} s"
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training left: the history, and the state of the epoch that validated best.

    Without held-out images that is the last epoch. The module itself holds the last epoch.
    """

    epochs: list[Epoch]
    best: Epoch
    best_state: dict[str, Tensor]


def fit(
    recipe: Recipe,
    rule: LearningRule,
    model: nn.Module,
    batches: Batches,
    validation: tuple[Tensor, Tensor],
    progress: Progress,
) -> Fitted:
    """Train ``model`` in place on ``batches``; ``validation`` images and labels may be empty.

    Leaves it in evaluation. Raises RequestError (E_DIVERGED) when the loss is not finite.
    """
    settings, objective = recipe.train, Objective(recipe.loss)
    _lay_out(model, torch.channels_last)  # convolutions and their norms are faster so
    optimizer = optimiser(model, settings)
    schedule = course(optimizer, settings, settings.epochs * batches.per_epoch)
    epochs: list[Epoch] = []
    best, most, best_state = 0, -1, dict[str, Tensor]()
    for number in range(1, settings.epochs + 1):
        started, losses, correct = time.perf_counter(), 0.0, 0
        model.train()
        for done, batch in enumerate(batches.epoch(), 1):
            optimizer.zero_grad()
            output, loss = torch.zeros(()), 0.0
            for part in rule(model, batch.frames, settings.steps, settings.norm):
                share = objective(part, batch)
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.item()
                output = output + part.share * part.mean.detach()
                if rule.online:
                    optimizer.step()
                    optimizer.zero_grad()
            if not rule.online:
                optimizer.step()
            schedule.step()
            losses += _finite(loss, number, settings)
            correct += int((output.argmax(1) == batch.labels).sum())
            progress.show(
                f"epoch {number}/{settings.epochs}  {done}/{batches.per_epoch}  loss {loss:.4f}"
            )
        model.eval()
        checked = score(model, *validation, batches.scale, settings.steps)
        epochs.append(
            Epoch(
                number,
                losses / batches.per_epoch,
                correct / (batches.per_epoch * min(batches.batch, len(batches.images))),
                checked.accuracy if checked.n else None,
                round(time.perf_counter() - started, 3),
            )
        )
        progress.keep(str(epochs[-1]))
        if checked.correct > most or not checked.n:
            best, most = number, checked.correct
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
    _lay_out(model, torch.contiguous_format)
    return Fitted(epochs, epochs[best - 1], best_state)


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _finite(loss: float, epoch: int, settings: TrainPart) -> float:
    if not math.isfinite(loss):
        raise RequestError(
            "E_DIVERGED",
            f"the loss became {loss} in epoch {epoch}; try a smaller train.lr than {settings.lr}",
        )
    return loss
