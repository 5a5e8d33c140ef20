"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from .average import Average
from .dataset import Lazy
from .distributed import share_weights, summed
from .evaluate import Score, score_together
from .examples import Batches
from .objective import Objective
from .optimise import course, optimiser
from .precision import true_float32
from .progress import Progress
from .protocol import LearningRule
from .recipe import Recipe
from .state import Epoch, State, Tally
from .stopping import Asked, asked_to_stop
from .update import Updates

Labelled = tuple[Tensor | Lazy, Tensor]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training left: the history, and the state of the epoch that validated best.

    Without held-out images that is the last epoch. The module itself holds the last epoch.
    """

    epochs: list[Epoch]
    best: Epoch
    best_state: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Log:
    """Where a training tells of itself: its line, and ``kept`` for a finished epoch with the
    learning rate of its last update."""

    progress: Progress = field(default_factory=Progress)
    kept: Callable[[Epoch, float], None] = lambda _epoch, _rate: None


@dataclass(frozen=True, eq=False)
class Saving:
    """How a training is kept while it goes: ``save`` after every epoch, ``every`` so many seconds
    in between, and when it is asked to stop. ``restore`` fills a fresh one from what was kept."""

    save: Callable[[State], None] = lambda _state: None
    restore: Callable[[State], None] = lambda _state: None
    every: float = 120.0


@dataclass(frozen=True, eq=False)
class _Loop:
    recipe: Recipe
    updates: Updates
    batches: Batches
    validation: Labelled
    log: Log
    saving: Saving


def fit(
    recipe: Recipe,
    rule: LearningRule,
    model: nn.Module,
    batches: Batches,
    validation: Labelled,
    log: Log | None = None,
    saving: Saving | None = None,
) -> Fitted:
    """Train ``model`` in place on ``batches``; ``validation`` images and labels may be empty.

    Leaves it in evaluation. Asked to stop, it finishes the update, saves and lets the signal act.
    Raises RequestError (E_DIVERGED) that names the first place where a value is not finite.
    """
    _lay_out(model, torch.channels_last)  # convolutions and their norms are faster so
    share_weights(model)
    objective = Objective.of(recipe, model)
    state = _fresh(recipe, model, objective, batches.per_epoch)
    loop = _Loop(
        recipe,
        Updates(recipe, rule, objective),
        batches,
        validation,
        log or Log(),
        saving or Saving(),
    )
    loop.saving.restore(state)
    with asked_to_stop() as asked, true_float32():
        while not finished(state, recipe) and not _agreed(asked, state):
            _epoch(loop, state, asked)
    if not finished(state, recipe):
        raise KeyboardInterrupt  # the signal's own handler came back
    model.eval()
    model.load_state_dict(_tested(state))
    _lay_out(model, torch.contiguous_format)
    return Fitted(state.epochs, state.epochs[state.best - 1], state.best_state)


def _fresh(recipe: Recipe, model: nn.Module, objective: Objective, per_epoch: int) -> State:
    """Before the first update."""
    settings = recipe.train
    optimizer = optimiser(model, settings)
    schedule = course(optimizer, settings, settings.epochs * per_epoch)
    average = Average(model, settings.average) if settings.average else None
    return State(model, optimizer, schedule, average, objective.price)


def _tested(state: State) -> dict[str, Tensor]:
    """Parameters and buffers as they are tested and kept: the averaged ones where there are."""
    if state.average is None:
        return {name: value.clone() for name, value in state.model.state_dict().items()}
    with state.average.applied(state.model) as model:
        return {name: value.clone() for name, value in model.state_dict().items()}


def finished(state: State, recipe: Recipe) -> bool:
    """Whether the last epoch is done, or none got better for too long."""
    done, patience = len(state.epochs), recipe.train.patience
    return done == recipe.train.epochs or (patience > 0 and done - state.best >= patience)


def _agreed(asked: Asked, state: State) -> bool:
    """Whether any process was asked to stop; then all stop, at the same update."""
    device = next(state.model.parameters()).device
    if summed([asked.by is not None], device)[0]:
        asked.by = asked.by or signal.SIGTERM
        return True
    return False


def _epoch(loop: _Loop, state: State, asked: Asked) -> None:
    """What is left of the epoch under way, as far as nobody asks to stop; its state is saved."""
    number, tally = len(state.epochs) + 1, state.tally
    before, started = replace(tally), time.perf_counter()
    saved = started
    state.model.train()
    for batch in loop.batches.epoch(number, skip=tally.updates):
        done = loop.updates(state, batch, asked.by is not None)
        tally.updates += 1
        tally.loss += done.loss
        tally.correct += done.correct
        tally.shown += done.shown
        now = time.perf_counter()
        tally.seconds = before.seconds + now - started
        tally.waited = before.waited + loop.batches.waited
        tally.worked = before.worked + loop.batches.worked
        loop.log.progress.show(
            f"epoch {number}/{loop.recipe.train.epochs}  {tally.updates}/{loop.batches.per_epoch}  "
            f"loss {done.loss:.4f}"
        )
        if done.stop:
            asked.by = asked.by or signal.SIGTERM
            loop.saving.save(state)
            return
        if now - saved >= loop.saving.every:
            loop.saving.save(state)
            saved = now
    _conclude(loop, state, before.seconds, started)
    loop.saving.save(state)


def _conclude(loop: _Loop, state: State, before: float, started: float) -> None:
    """Validate the epoch under way and make it one of the finished."""
    tally, model = state.tally, state.model
    rate = state.optimizer.param_groups[0]["lr"]
    model.eval()
    with nullcontext() if state.average is None else state.average.applied(model):
        checked = _validated(loop, model)
    state.epochs.append(
        Epoch(
            len(state.epochs) + 1,
            tally.loss / tally.updates,
            tally.correct / tally.shown,
            checked.accuracy if checked.n else None,
            round(before + time.perf_counter() - started, 3),
            round(tally.waited, 3),
            _per_second(tally.shown, tally.seconds),
            _per_second(tally.shown, tally.worked),
        )
    )
    if checked.correct > state.most or not checked.n:
        state.best, state.most = len(state.epochs), checked.correct
        state.best_state = _tested(state)
    state.tally = Tally()
    loop.log.progress.keep(str(state.epochs[-1]))
    loop.log.kept(state.epochs[-1], rate)


def _per_second(count: float, seconds: float) -> float:
    return round(count / max(seconds, 1e-9), 1)


def _validated(loop: _Loop, model: nn.Module) -> Score:
    scale, steps = loop.batches.seen_scale, loop.recipe.train.steps
    return score_together(model, *loop.validation, scale, steps)


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
