"""A whole training run: recipe in, run folder out."""

from __future__ import annotations

import io
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__
from ..errors import CouldNotRunError, RequestError
from ..files import write_text
from ..runs import unfinished
from .account import account
from .build import check
from .checkpoint import HISTORY, MODEL, RECIPE, STATE, WITNESS, save
from .coding import Seen, seen
from .dataset import Examples
from .distributed import check_shares, first_goes_first, joined, launched, place
from .evaluate import Score, score_together
from .examples import Batches, hold_out, stored_on
from .fit import Fitted, Log, Saving, fit
from .journal import journal
from .machine import device_of, in_words
from .progress import Progress
from .protocol import LearningRule
from .quantised import account as quantised
from .quantised import begin, origin, settle
from .recipe import Recipe
from .recipe_file import read_recipe, recipe_hash, to_toml
from .state import State, check_state, load_state, same_recipe, save_state
from .tuning_record import resolved
from .witness import witness

Facts = dict[str, Any]

EVERY = 120.0
"""Seconds between two states kept in the middle of an epoch."""


def train_run(
    recipe: Recipe,
    data_folder: Path | None,
    out: Path,
    resume: bool = False,
    every: float = EVERY,
) -> Facts:
    """Train as the recipe says and leave a run folder; returns its history.

    The folder holds recipe.toml (resolved: every field; a width that was ``auto`` is a number, and
    tuning.json tells of the choice), history.json, model.safetensors (the last epoch) and
    witness.npz, each whole or not at all; tensorboard/ where that is installed. While it trains,
    all that it needs to go on stands in state.safetensors, kept after every epoch, ``every`` so
    many seconds and when it is asked to stop; the file goes when the run is complete. ``resume``:
    go on from there, on the CPU bit for bit as if it had never stopped. Among several processes
    that a launcher started only the first one writes, and ``out`` must be one folder for all when a
    run goes on.

    The test images are scored after training. The caller's random state is left as it was. Raises
    RequestError (E_OUT, E_RUN, E_RESUME, E_RECIPE, E_DIVERGED) and CouldNotRunError (E_WRITE,
    E_DATA, E_DEVICE, E_LAUNCH).
    """
    if resume and (out / RECIPE).is_file():
        same_recipe(recipe, asdict(read_recipe(out / RECIPE)), out / RECIPE)
        recipe = read_recipe(out / RECIPE)
    device, rule = device_of(recipe.train.device), check(recipe)
    with _ready(out, recipe, resume) if launched().first else nullcontext(), joined(device):
        recipe = resolved(recipe, data_folder, out, device)
        saving = Saving(
            partial(_kept, recipe, out),
            partial(_restored, recipe, out / STATE) if resume else Saving.restore,
            every,
        )
        return _trained(recipe, rule, data_folder, out, device, saving)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """What the system says against a folder is said as CouldNotRunError (E_WRITE)."""
    try:
        yield
    except OSError as error:
        raise CouldNotRunError(
            "E_WRITE", f"cannot write to the folder {folder}: {error.strerror or error}"
        ) from error


@contextmanager
def _ready(out: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """``out`` as a folder that a run can become or go on in; what was made for it goes again where
    nothing came to lie in it."""
    made: list[Path] = []
    try:
        with usable(out):
            _refuse_taken(out, recipe, resume)
            made = [folder for folder in (out, *out.parents) if not folder.exists()]
            out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise CouldNotRunError("E_WRITE", f"cannot write to the folder {out}: it is read-only")
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # something lies in it, or it could not be made
                folder.rmdir()


def _refuse_taken(out: Path, recipe: Recipe, resume: bool) -> None:
    """Refuse a folder in which a run cannot begin, or with ``resume`` cannot go on."""
    if resume:
        if not unfinished(out):
            raise RequestError("E_RUN", f"{out} holds no unfinished training to go on with")
        if (out / STATE).is_file():
            check_state(out / STATE, recipe)
        return
    if unfinished(out):
        raise RequestError(
            "E_RUN",
            f"{out} holds a training that has not finished: go on with --resume {out}, or name "
            "another folder",
        )
    if (out / RECIPE).is_file():
        raise RequestError("E_RUN", f"{out} holds a run already; name another with --out")
    if out.is_dir() and any(out.iterdir()):
        raise RequestError(
            "E_OUT", f"{out} exists and is no run folder (it has no {RECIPE}); name another place"
        )


def _kept(recipe: Recipe, out: Path, state: State) -> None:
    if place().first:
        if not (out / RECIPE).is_file():
            write_text(out / RECIPE, to_toml(recipe))  # first: a state alone cannot go on
        save_state(state, recipe, out / STATE)


def _restored(recipe: Recipe, path: Path, state: State) -> None:
    if path.is_file():
        load_state(state, recipe, path)


def _trained(
    recipe: Recipe,
    rule: LearningRule,
    data_folder: Path | None,
    out: Path,
    device: torch.device,
    saving: Saving,
) -> Facts:
    started, settings, data = time.perf_counter(), recipe.train, seen(recipe)
    with first_goes_first():
        examples = data.source.load(data_folder, "train", settings.steps)
        test = data.load(data_folder, "test", settings.steps)  # what it lacks shows before the work
    kept, held = _held_out(examples, recipe)
    start = origin(recipe)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model = begin(recipe).to(device)
        fitted = _fit(recipe, rule, model, data, (kept, held), out, saving)
    last = _score(model, test, recipe, data)
    best = _score_of_best(fitted, model, test, recipe, data, last)
    facts = _facts(recipe, model, fitted, device) | {
        "images": {"train": len(kept[0]), "validation": len(held[0]), "test": len(test[0])},
        "test": {"last": _plain(last), "best": _plain(best)},
        **account(recipe, model, data, test[0]),
        **quantised(recipe, model, start),
        "seconds": round(time.perf_counter() - started, 3),
    }
    settle(model)
    if place().first:
        evidence = witness(model, test, data.scale, settings.steps, recipe.witness.samples)
        write_text(out / RECIPE, to_toml(recipe))
        save(model, out / MODEL, {"version": __version__, "recipe": recipe_hash(recipe)})
        evidence.save(out / WITNESS)
        write_text(out / HISTORY, json.dumps(facts, indent=2, allow_nan=False) + "\n")
        (out / STATE).unlink()
    return facts


def _held_out(examples: Examples, recipe: Recipe) -> tuple[Examples, Examples]:
    """`hold_out` of the images that the recipe uses.

    Raises RequestError (E_RECIPE) where a share of them is none.
    """
    (images, labels), share = examples, recipe.data.validation
    limit = recipe.train.limit or len(images)
    kept, held = hold_out((images[:limit], labels[:limit]), share, recipe.train.seed)
    if share and not len(held[0]):
        raise RequestError(
            "E_RECIPE",
            f"data.validation is {share}, of {len(kept[0])} images at most half an image of any "
            "class; expected 0, or a share that holds some out",
        )
    return kept, held


def _fit(
    recipe: Recipe,
    rule: LearningRule,
    model: nn.Module,
    data: Seen,
    examples: tuple[Examples, Examples],
    out: Path,
    saving: Saving,
) -> Fitted:
    (kept, held), settings, here = examples, recipe.train, place()
    device = next(model.parameters()).device
    check_shares(min(settings.batch, len(kept[0])), here.world)
    batches = Batches(
        *stored_on(device, kept),
        data.source.scale,
        recipe.data,
        settings.batch,
        settings.seed,
        data.classes,
        here.rank,
        here.world,
        settings.steps,
    )
    validation = stored_on(device, (data.coded(held[0], settings.steps), held[1]))
    if not here.first:
        return fit(recipe, rule, model, batches, validation, Log(Progress(io.StringIO())), saving)
    with journal(out) as note:
        return fit(recipe, rule, model, batches, validation, Log(Progress(), note), saving)


def _score(model: nn.Module, examples: Examples, recipe: Recipe, data: Seen) -> Score:
    images, labels = stored_on(next(model.parameters()).device, examples)
    return score_together(model, images, labels, data.scale, recipe.train.steps)


def _score_of_best(
    fitted: Fitted,
    model: nn.Module,
    test: Examples,
    recipe: Recipe,
    data: Seen,
    last: Score,
) -> Score:
    """The test score of the epoch that validated best; the module is given back as it was."""
    if fitted.best is fitted.epochs[-1]:
        return last
    final = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(fitted.best_state)
    best = _score(model, test, recipe, data)
    model.load_state_dict(final)
    return best


def _plain(score: Score) -> Facts:
    return {"accuracy": score.accuracy, **asdict(score)}


def _facts(recipe: Recipe, model: nn.Module, fitted: Fitted, device: torch.device) -> Facts:
    return {
        "recipe": recipe_hash(recipe),
        "seed": recipe.train.seed,
        "versions": {
            "snnpipe": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "machine": in_words(device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": [asdict(epoch) for epoch in fitted.epochs],
        "best_epoch": fitted.best.epoch,
    }
