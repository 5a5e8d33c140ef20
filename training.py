"""What `snnpipe train` does: one run, one that goes on, or the runs of several seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from . import runs
from .console import answer, say
from .errors import RequestError
from .options import plugin_names

if TYPE_CHECKING:
    from .train.recipe import Recipe

# Threads that spin while they wait cost a shared machine several times the work itself.
_PATIENT = ("OMP_WAIT_POLICY", "passive")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The arguments and options of the command."""

    recipe: Path | None
    overrides: Sequence[str]
    max_synops: float | None
    data_folder: Path | None
    out: Path | None
    resume: Path | None
    seeds: int | None
    rules: str | None
    preflight: bool
    as_json: bool


def train(asked: Asked) -> None:
    """Train as asked, and say what came of it. Raises as `train.run.train_run`."""
    os.environ.setdefault(*_PATIENT)
    recipe = _recipe(asked)
    if asked.preflight:
        _preflight(asked, recipe)
    elif asked.seeds is not None:
        _several(asked, recipe)
    else:
        _one(asked, recipe)


def _recipe(asked: Asked) -> Recipe:
    """What is to be trained; RequestError (E_USAGE) where options do not fit each other."""
    from .train.recipe_file import read_recipe

    if asked.resume is not None and (asked.out or asked.seeds):
        raise RequestError("E_USAGE", "--resume RUN names the folder; leave out --out and --seeds")
    if asked.preflight and (asked.out or asked.resume or asked.seeds):
        raise RequestError(
            "E_USAGE", "--preflight leaves no run; leave out --out, --resume and --seeds"
        )
    if asked.rules is not None and asked.seeds is None:
        raise RequestError("E_USAGE", "--rules compares rules over several seeds; add --seeds 8")
    path = asked.recipe
    if path is None:
        if asked.resume is None:
            raise RequestError(
                "E_USAGE", "name a recipe, e.g. recipes/digits.toml, or --resume RUN"
            )
        if not runs.unfinished(asked.resume):
            raise RequestError(
                "E_RUN", f"{asked.resume} holds no unfinished training to go on with"
            )
        path = asked.resume / "recipe.toml"
    budget = [] if asked.max_synops is None else [f"loss.max_synops={asked.max_synops}"]
    return read_recipe(path, [*asked.overrides, *budget])


def _one(asked: Asked, recipe: Recipe) -> None:
    from .train.checkpoint import STATE
    from .train.distributed import launched
    from .train.run import train_run

    first, resume = launched().first, asked.resume is not None
    with _folder(asked) as out:
        if first and resume and runs.unfinished(out) and not (out / STATE).is_file():
            say(f"{out} holds no {STATE}, so nothing of its training: it starts from epoch 1")
        try:
            summary = train_run(recipe, asked.data_folder, out, resume)
        except (KeyboardInterrupt, SystemExit):
            if first and runs.unfinished(out):
                say(f"kept: {out}; go on with: snnpipe train --resume {quote(str(out))}")
            raise
    if not first:
        return
    say(f"{out}: {_result(summary, recipe.train.steps)}")
    say(f"next: snnpipe export {quote(str(out))}")
    if asked.as_json:
        answer({"run": str(out), **summary})


@contextmanager
def _folder(asked: Asked) -> Iterator[Path]:
    """The folder that was named, or a new one, which goes again where nothing came to lie in it."""
    named = asked.resume or asked.out
    out = named or _new(asked)
    try:
        yield out
    finally:
        if named is None and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def _new(asked: Asked) -> Path:
    """A new folder below runs/; among several processes the first one makes it."""
    from .train.distributed import launched

    name = "run" if asked.recipe is None else asked.recipe.stem
    return runs.new_run(name) if launched().first else runs.RUNS / name


def _result(summary: Mapping[str, Any], steps: int) -> str:
    last, best = summary["test"]["last"], summary["test"]["best"]
    text = (
        f"test accuracy {100 * last['correct'] / last['n']:.2f} % at T = {steps} (last epoch, "
        f"n = {last['n']:,})"
    )
    if budget := summary.get("synops", {}).get("budget"):
        text += (
            f", {summary['synops']['per_inference']:,.0f} synaptic operations per inference of a "
            f"budget of {budget:,.0f}"
        )
    if not summary["images"]["validation"]:
        return text
    return (
        f"{text}; {100 * best['correct'] / best['n']:.2f} % for epoch {summary['best_epoch']}, the "
        "best by validation"
    )


def _preflight(asked: Asked, recipe: Recipe) -> None:
    from .train.preflight import as_data, preflight

    seen = preflight(recipe, asked.data_folder)
    for line in [*seen.table, *seen.advice]:
        say(line)
    if asked.as_json:
        answer(as_data(seen))


def _several(asked: Asked, recipe: Recipe) -> None:
    from .train.distributed import launched
    from .train.seeds import by_rules, train_series

    variants = by_rules(recipe, [] if asked.rules is None else plugin_names(asked.rules, "rules"))
    first = launched().first
    with _folder(asked) as out:
        try:
            document = train_series(
                variants, asked.seeds or 0, asked.data_folder, out, say if first else _silent
            )
        except (KeyboardInterrupt, SystemExit):
            if first and out.is_dir():
                say(f"kept: {out}; go on with the same command and --out {quote(str(out))}")
            raise
    if not first:
        return
    for line in _spread(document):
        say(line)
    if asked.as_json:
        answer({"folder": str(out), **document})


def _silent(_text: str) -> None:
    """What the first process says need not be said twice."""


def _spread(document: Mapping[str, Any]) -> list[str]:
    """Means and differences, in percent and points."""
    lines = [
        f"{name}: mean {100 * of['mean']:.2f} %, deviation {100 * of['deviation']:.2f}, "
        f"{100 * of['level']:.0f} % interval of the mean +- {100 * of['half_width']:.2f} points "
        f"({of['n']} seeds)"
        for name, of in document["variants"].items()
    ]
    for name, of in document["differences"].items():
        low, high = (100 * (of["mean"] + sign * of["half_width"]) for sign in (-1, 1))
        lines.append(
            f"{name}: {100 * of['mean']:+.2f} points, {100 * of['level']:.0f} % interval "
            f"{low:+.2f} to {high:+.2f} ({of['n']} pairs)"
        )
    return lines
