"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .errors import RequestError, nearest

RUN = click.argument("run", required=False, metavar="[RUN|FILE]", type=click.Path(path_type=Path))
WHERE = (
    "RUN is a folder that `snnpipe train` made (default: the newest below runs/), FILE a .nir file "
    "or a .net of Lava."
)
DATA = click.option(
    "--data",
    "data_folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the data set lies. Default: $SNNPIPE_DATA, then a download.",
)


def _limits(pairs: tuple[str, ...]) -> Any:
    """``NAME=NUMBER`` options to the limits of a reader."""
    from .network.hdf5 import Limits

    known = {field.name for field in fields(Limits)}
    changed = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in known or not number.isdecimal():
            raise RequestError(
                "E_LIMIT",
                f"--limit {pair}: expected NAME=NUMBER with a name of {', '.join(sorted(known))}"
                f"{nearest(name, known)}",
            )
        changed[name] = int(number)
    return Limits(**changed)


def reads(steps: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that say how a file is read, handed to the command as one ``reading``; ``steps`` is
    what --steps means for a command that runs it."""
    options = (
        click.option(
            "--semantics",
            metavar="NAME",
            help="How to read a .nir file without a contract, e.g. nir-strict, norse, snntorch; "
            "`snnpipe check FILE` shows them all. Needs --steps. Of a .net: lava, slayer.",
        ),
        click.option(
            "--steps", type=click.IntRange(1, 100_000), metavar="T", help=steps, hidden=not steps
        ),
        click.option(
            "--dt",
            type=click.FloatRange(1e-30, 1e9),
            metavar="SECONDS",
            help="Another step than the semantics'.",
        ),
        click.option("--compare", type=click.Choice(["gt", "ge"]), help="Fire at v > or v >=."),
        click.option("--reset", type=click.Choice(["value", "subtract"]), help="Another reset."),
        click.option(
            "--coding",
            type=click.Choice(["direct", "events"]),
            help="Inputs of a file without a contract: one frame for all steps, or one a step "
            "(default).",
        ),
        click.option(
            "--drive",
            type=click.Choice(["image", "mantissas"]),
            help="Input neurons of a .net: images (default), or their bias mantissas.",
        ),
        click.option(
            "--levels",
            type=click.IntRange(1, 1_000_000),
            metavar="N",
            help="The largest value of one input of a .net without input neurons. Default: 1.",
        ),
        click.option(
            "--layers",
            type=click.IntRange(1, 1_000_000),
            metavar="N",
            help="Only the first N layers of a .net.",
        ),
        click.option(
            "--limit",
            "limits",
            multiple=True,
            metavar="NAME=NUMBER",
            help="What a file may ask for, e.g. dataset_bytes=4000000000; may be repeated.",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(**given: Any) -> Any:
            from .inputs import OF_NET, POINTS, Reading

            points = {name: given.pop(name) for name in ("semantics", "steps", *POINTS, *OF_NET)}
            limits = _limits(given.pop("limits"))
            return function(reading=Reading(**points, limits=limits), **given)

        decorated: Callable[..., Any] = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def plugin_names(text: str, kind: str) -> list[str]:
    """A comma-separated list of plug-in names, each checked before anything runs."""
    from . import plugins

    names = [name.strip() for name in text.split(",") if name.strip()]
    available = list(plugins.summaries(kind))
    for name in names:
        if name not in available:
            raise RequestError(
                "E_PLUGIN",
                f"there is no '{name}' among the {kind}: {', '.join(available)}"
                f"{nearest(name, available)}",
            )
    if not names:
        raise RequestError("E_PLUGIN", f"name at least one of {', '.join(available)}")
    return list(dict.fromkeys(names))


def randomly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of random inputs, handed to the command as one ``random``."""

    @click.option(
        "--samples",
        type=click.IntRange(1, 10_000_000),
        metavar="N",
        help="How many samples. Default: all there are, 8 random ones.",
    )
    @click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        metavar="N",
        help="Of random inputs.",
    )
    @click.option(
        "--density",
        default=0.5,
        show_default=True,
        type=click.FloatRange(0, 1),
        metavar="P",
        help="Share of random inputs that are not 0.",
    )
    @wraps(function)
    def run(samples: int | None, seed: int, density: float, **given: Any) -> Any:
        from .inputs import Random

        if math.isnan(density):
            raise RequestError("E_INPUT", "--density is nan; expected 0 to 1")
        random = Random(samples or Random.samples, seed, density)
        return function(samples=samples, random=random, **given)

    return run


TARGET_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "form": click.option(
        "--form", help="ONNX: step (default), scan, or unrolled up to T = 16.", metavar="NAME"
    ),
    "profile": click.option(
        "--profile",
        help="NIR: full (default), or portable, which other frameworks read.",
        metavar="NAME",
    ),
    "compat": click.option(
        "--nir-compat", "compat", metavar="VERSION", help="NIR: a file for an older nir, 1.0.4."
    ),
    "biases": click.option(
        "--biases",
        metavar="NAME",
        help="netx: exact (default) refuses biases that are no whole units, rounded rounds them.",
    ),
    "bits": click.option("--bits", metavar="N", help="Loihi: bits of a weight, 8 (default) to 2."),
    "first_layer": click.option(
        "--first-layer",
        metavar="NAME",
        help="Loihi: who computes it from a still image: host (default), or the chip, from bytes "
        "as graded spikes.",
    ),
    "scaling": click.option(
        "--scaling",
        metavar="NAME",
        help="Loihi: scales of the least error of the weights, mse (default), or of the fewest "
        "changed spikes on training images, flips.",
    ),
    "thresholds": click.option(
        "--thresholds",
        metavar="NAME",
        help="Loihi: one a layer (default), or one a channel, for few bits.",
    ),
    "chip": click.option("--chip", metavar="NAME", help="Loihi: loihi1 (default) or loihi2."),
}
"""Options of targets, by the names that the targets know them under."""


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of targets, handed to the command as one ``chosen``: those that were named."""

    @wraps(function)
    def run(**given: Any) -> Any:
        named = {name: given.pop(name) for name in TARGET_OPTIONS}
        chosen = {name: value for name, value in named.items() if value is not None}
        return function(chosen=chosen, **given)

    decorated: Callable[..., Any] = run
    for option in reversed(TARGET_OPTIONS.values()):
        decorated = option(decorated)
    return decorated


AXES = click.option(
    "--axes",
    metavar="LETTERS",
    help="Axes of the inputs file: t steps, b samples, c h w or n, e.g. whc, bchwt.",
)


def records(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a recording from elsewhere, handed to the command as one ``recorded``, or None."""

    @click.option(
        "--trace",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A recording to judge: .npz with an array a layer, or as run --save writes; .npy.",
    )
    @click.option(
        "--trace-axes",
        metavar="LETTERS",
        help="Its axes, as --axes names them. Default: the usual order that fits.",
    )
    @click.option(
        "--trace-layer", metavar="NAME", help="The layer of an .npy. Default: the output."
    )
    @wraps(function)
    def run(
        trace: Path | None, trace_axes: str | None, trace_layer: str | None, **given: Any
    ) -> Any:
        from .inputs import Recorded

        if trace is None and (trace_axes or trace_layer):
            raise RequestError("E_TRACE", "--trace-axes and --trace-layer belong to --trace FILE")
        recorded = None if trace is None else Recorded(trace, trace_axes, trace_layer)
        return function(recorded=recorded, **given)

    return run
