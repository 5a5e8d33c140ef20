"""A whole training run: recipe in, run folder out."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__, plugins
from ..errors import CouldNotRunError, RequestError
from ..files import write_folder, write_text
from .build import build, rule_of
from .checkpoint import HISTORY, MODEL, RECIPE, WITNESS, save
from .dataset import DataSet, Examples
from .evaluate import Score, score
from .examples import Batches, hold_out
from .fit import Fitted, fit
from .progress import Progress
from .protocol import LearningRule
from .recipe import Recipe
from .recipe_file import recipe_hash, to_toml
from .witness import witness

Facts = dict[str, Any]


def train_run(recipe: Recipe, data_folder: Path | None, out: Path) -> Facts:
    """Train as the recipe says and leave a run folder; returns its history.

    The folder holds recipe.toml (resolved: every field), history.json, model.safetensors (the last
    epoch) and witness.npz; it appears whole or not at all and takes the place of an earlier run.
    Test images are read after training. The caller's random state is left as it was. Raises
    RequestError (E_OUT, E_DIVERGED) and CouldNotRunError (E_WRITE, E_DATA, E_DEVICE).
    """
    started = time.perf_counter()
    device = _device(recipe.train.device)
    _may_become_a_run(out)
    data: DataSet = plugins.load("data", recipe.data.name)
    rule = rule_of(recipe)
    images, labels = data.load(data_folder, "train", recipe.train.steps)
    limit = recipe.train.limit or len(images)
    kept, held = hold_out(
        (images[:limit], labels[:limit]), recipe.data.validation, recipe.train.seed
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.train.seed)
        model = build(recipe).to(device)
        fitted = _fit(recipe, rule, model, data, kept, held)
    test = data.load(data_folder, "test", recipe.train.steps)
    last = _score(model, test, recipe, data)
    evidence = witness(model, test, data.scale, recipe.train.steps, recipe.witness.samples)
    facts = _facts(recipe, model, fitted, device) | {
        "images": {"train": len(kept[0]), "validation": len(held[0]), "test": len(test[0])},
        "test": {
            "last": _plain(last),
            "best": _plain(_score_of_best(fitted, model, test, recipe, data, last)),
        },
        "seconds": round(time.perf_counter() - started, 3),
    }

    def write(folder: Path) -> None:
        write_text(folder / RECIPE, to_toml(recipe))
        write_text(folder / HISTORY, json.dumps(facts, indent=2, allow_nan=False) + "\n")
        save(model, folder / MODEL, {"version": __version__, "recipe": recipe_hash(recipe)})
        evidence.save(folder / WITNESS)

    write_folder(out, write, mark=RECIPE)
    return facts


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(
            "E_DEVICE", f"train.device is '{name}'; expected cpu, cuda or cuda:<number>"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError("E_DEVICE", f"train.device is '{name}'; expected cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CouldNotRunError("E_DEVICE", f"train.device is '{name}', but no GPU is usable here")
    return device


def _may_become_a_run(out: Path) -> None:
    """Refuse, before the work, a folder that is somebody's and no run, or cannot be written."""
    if out.is_dir() and any(out.iterdir()) and not (out / RECIPE).is_file():
        raise RequestError(
            "E_OUT", f"{out} exists and is no run folder (it has no {RECIPE}); name another place"
        )
    above = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise CouldNotRunError(
            "E_WRITE", f"cannot write {out}: {above} is not a folder to write in"
        )


def _fit(
    recipe: Recipe,
    rule: LearningRule,
    model: nn.Module,
    data: DataSet,
    kept: Examples,
    held: Examples,
) -> Fitted:
    device = torch.device(recipe.train.device)
    images, labels, held_images, held_labels = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (*kept, *held)
    )
    order = torch.Generator().manual_seed(recipe.train.seed)
    batches = Batches(images, labels, data.scale, recipe.train.batch, recipe.data.flip, order)
    return fit(recipe, rule, model, batches, (held_images, held_labels), Progress())


def _score(model: nn.Module, examples: Examples, recipe: Recipe, data: DataSet) -> Score:
    device = torch.device(recipe.train.device)
    images, labels = (torch.from_numpy(part).to(device) for part in examples)
    return score(model, images, labels, data.scale, recipe.train.steps)


def _score_of_best(
    fitted: Fitted,
    model: nn.Module,
    test: Examples,
    recipe: Recipe,
    data: DataSet,
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
        "machine": _machine(device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": [asdict(epoch) for epoch in fitted.epochs],
        "best_epoch": fitted.best.epoch,
    }


def _machine(device: torch.device) -> str:
    """The machine in words: processor, threads, system."""
    listing = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else ())
        if line.startswith("model name")
    ]
    processor = names[0] if names else platform.processor() or platform.machine()
    words = f"{processor}, {torch.get_num_threads()} threads, {platform.system()}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} with {words}"
    return words
