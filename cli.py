"""The command line: what did the user ask for? Every import of a room stands inside its command."""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import click

from . import __version__, runs
from .console import INTERRUPTED, TERMINATED, answer, command, fail, progress_bar, say, told
from .errors import CouldNotRunError, RequestError, nearest
from .lava_setup import lava
from .options import (
    AXES,
    DATA,
    RUN,
    WHERE,
    plugin_names,
    randomly,
    reads,
    records,
    target_options,
)

TARGETS = ("nir", "onnx", "lava")
RUNTIMES = ("torch", "onnx", "event", "loihi")
INTEGER_RUNTIMES = ("event", "loihi")
UNFIT = {"E_UNSUPPORTED", "E_RANGE", "E_MISSING", "E_ARTEFACT"}
"""What leaves out a part that nobody named: the network or this machine cannot do it."""
LISTS = ("runtimes", "targets", "rules", "surrogates", "models", "data", "semantics", "chips")


class _Commands(click.Group):
    """Suggests the nearest command for one it does not know."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(
                error.message.rstrip(".") + nearest(args[0], self.commands), ctx
            ) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="snnpipe")
def cli() -> None:
    """Train spiking networks, export them, and prove that what runs is what was trained.

    \b
    snnpipe train recipes/digits.toml      a run folder below runs/
    snnpipe export --target nir,onnx,lava  its forms for CPU, ONNX and Loihi
    snnpipe verify                         the verdict, and report.html
    """  # noqa: D301 - \b keeps click from wrapping the lines below it


@cli.command(short_help="Train a network from a recipe into a new run folder.")
@click.argument("recipe", required=False, metavar="[RECIPE.toml]", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value of the recipe, e.g. train.lr=0.01; may be repeated.",
)
@click.option(
    "--max-synops",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Train to a budget of N synaptic operations per inference (loss.max_synops).",
)
@DATA
@click.option(
    "--out",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Folder of the new run. Default: runs/ and the recipe's name.",
)
@click.option(
    "--resume",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Go on with a training that was interrupted; it brings its own recipe.",
)
@click.option(
    "--seeds",
    type=click.IntRange(2, 1000),
    metavar="N",
    help="Train N times, from train.seed on, and say mean, deviation and the 95 % interval.",
)
@click.option(
    "--rules",
    metavar="NAMES",
    help="With --seeds: rules to compare, separated by commas, in pairs of equal seed.",
)
@click.option(
    "--preflight",
    is_flag=True,
    help="Train 50 updates only, leave no run, and say how near the rule's gradient is to that of "
    "backpropagation through time, and whether the gradient keeps its size over depth.",
)
@command
def train(**asked: Any) -> None:
    """Train a network from a recipe into a new run folder.

    Ctrl-C keeps what is trained so far: --resume goes on with it, bit for bit on the CPU. Several
    processes, on one machine or many, train together under a launcher: torchrun -m snnpipe train.
    """
    from . import training

    training.train(training.Asked(**asked))


@cli.command(
    short_help="Write a trained network for other runtimes.",
    epilog=WHERE,
)
@RUN
@click.option(
    "--target",
    "targets",
    metavar="NAMES",
    help=f"What to write, separated by commas. Default: those of {','.join(TARGETS)} that can hold "
    "the network.",
)
@click.option(
    "--no-grid",
    is_flag=True,
    help="Leave the weights of a run as trained: no rounding to "
    "a grid, and equality proven by replay instead of by certificate.",
)
@target_options
@DATA
@command
@reads("How many steps a file without a contract runs.")
def export(
    run: Path | None,
    targets: str | None,
    no_grid: bool,
    chosen: dict[str, str],
    reading: Any,
    as_json: bool,
    data_folder: Path | None,
) -> None:
    """Write a trained network for other runtimes: NIR, ONNX, Loihi integers.

    A run's network.nir is written first; every target derives from that file alone. Artefacts of a
    bare FILE go into a folder beside it.
    """
    from . import calibration, commands
    from .export.write import options_of, write_targets
    from .files import read_manifest, remove_folder

    names = list(TARGETS) if targets is None else plugin_names(targets, "targets")
    options = options_of(names, chosen)
    where = runs.place(run)
    trained = where.is_run and (where.folder / "model.safetensors").is_file()
    if trained:
        commands.lift_run(where, grid=not no_grid)
    elif no_grid:
        raise RequestError(
            "E_RUN", f"--no-grid is for trained runs; {where.argument} is exported as it is"
        )
    network = commands.truth(where, reading)
    reading.hold_steps(network)
    recipe = where.recipe if trained else None
    looks = any(options[name].get("scaling") == "flips" for name in names)
    seen = calibration.draw(where, data_folder) if looks else None
    written: dict[str, Path] = {}
    for name in names:
        try:
            written |= write_targets(network, [name], where.artefacts, recipe, options[name], seen)
        except (RequestError, CouldNotRunError) as error:
            if targets is not None or error.code not in UNFIT:
                raise
            say(f"{name}: left out: {error.message}")
            if remove_folder(where.artefact(name)):
                say(f"{name}: removed {where.artefact(name)}, made from another network.nir")
            continue
        say(f"{name}: {written[name]}")
        for remark in read_manifest(written[name]).get("remarks", ()):
            say(f"{name}: {remark}")
    say(f"next: snnpipe verify {quote(str(where.argument))}{reading.words(where.network)}")
    if as_json:
        answer(
            {"network": str(where.network), "artefacts": {k: str(v) for k, v in written.items()}}
        )


@cli.command(name="run", short_help="Run a network here and say what it did.", epilog=WHERE)
@RUN
@click.option(
    "--on",
    "runtime",
    default="event",
    show_default=True,
    metavar="NAME",
    help="Which runtime; `snnpipe list runtimes`.",
)
@click.option(
    "--input",
    "input_file",
    metavar="X.npy",
    type=click.Path(path_type=Path),
    help="(B, *shape) or (T, B, *shape), events (B, T, *shape); whole numbers are levels. "
    "Default: random.",
)
@click.option(
    "--save",
    metavar="OUT.npz",
    type=click.Path(path_type=Path),
    help="Where to keep outputs and packed spikes.",
)
@AXES
@DATA
@command
@randomly
@reads("How many steps. Default: the contract's.")
def run_(
    run: Path | None,
    runtime: str,
    input_file: Path | None,
    samples: int | None,
    random: Any,
    save: Path | None,
    axes: str | None,
    data_folder: Path | None,
    reading: Any,
    as_json: bool,
) -> None:
    """Run a network here and say what it did."""
    from . import commands, inputs

    names = plugin_names(runtime, "runtimes")
    if len(names) > 1:
        raise RequestError("E_PLUGIN", f"--on names {len(names)} runtimes; one is expected")
    where = runs.place(run)
    network, opened = commands.open_runtime(where, names[0], reading, data_folder)
    steps = reading.steps or network.contract.steps
    shown = network.with_contract(replace(network.contract, steps=steps))
    if input_file is None:
        x, source = random.draw(shown)
    else:
        x = inputs.first_samples(inputs.read_inputs(input_file, network, axes), samples, network)
        source = str(input_file)
    trace = opened.run(shown.frames(x), steps)
    if save is not None:
        commands.save_trace(save, trace)
    summary = commands.summary(network, trace, names[0], source)
    for line in commands.lines(summary):
        say(line)
    words = reading.words(where.network)
    say(f"next: snnpipe verify {quote(str(where.argument))} --on {names[0]}{words}")
    if as_json:
        answer(summary)


@cli.command(short_help="Say whether what runs is what was trained.", epilog=WHERE)
@RUN
@click.option(
    "--on",
    "runtimes",
    metavar="NAMES",
    help=f"Runtimes, separated by commas. Default: {','.join(RUNTIMES)}; for an integer network "
    f"{','.join(INTEGER_RUNTIMES)}.",
)
@click.option(
    "--inputs",
    "inputs_file",
    metavar="X.npy",
    type=click.Path(path_type=Path),
    help="Inputs of your own, (B, *shape), events (B, T, *shape). Default: the test set of a run, "
    "random inputs for a FILE.",
)
@click.option(
    "--labels",
    "labels_file",
    metavar="Y.npy",
    type=click.Path(path_type=Path),
    help="The class of each input, whole numbers (B,).",
)
@AXES
@DATA
@command
@records
@randomly
@reads("How many steps a file without a contract runs.")
def verify(
    run: Path | None,
    runtimes: str | None,
    samples: int | None,
    random: Any,
    inputs_file: Path | None,
    labels_file: Path | None,
    axes: str | None,
    data_folder: Path | None,
    recorded: Any,
    reading: Any,
    as_json: bool,
) -> int:
    """Say whether what runs is what was trained, spike by spike, and what it costs.

    Exit code 0: PASSED; 1: FAILED; 2: wrong request or input; 3: something could not run here.
    """
    from . import commands, inputs
    from .verify.page import page_missing, remove_report, write_report

    names = None if runtimes is None else plugin_names(runtimes, "runtimes")
    by_name = names is not None
    where = runs.place(run)
    network = commands.truth(where, reading)
    reading.hold_steps(network)
    if names is None:
        names = list(INTEGER_RUNTIMES if commands.is_integer(network) else RUNTIMES)
    files = (inputs_file, labels_file)
    labelled = inputs.test_set(where, network, files, data_folder, samples, random, axes)
    recording = None if recorded is None else recorded.read(network)
    remove_report(where.folder)  # not before the request is known to be a right one
    with progress_bar(len(labelled.x), "verify") as done:
        document = commands.verify_run(
            where,
            network,
            names,
            labelled,
            done,
            frozenset() if by_name else UNFIT,
            reading.words(where.network),
            recording,
            reading.facts(where.network, network, labelled.x),
            data_folder,
        )
    for left_out in document["facts"]["left_out"]:
        say(f"left out: {left_out}")
    for line in commands.chain_lines(document):
        say(line)
    say(f"{document['verdict']}: {document['sentence']}")
    paths = write_report(document, where.folder)
    if missing := page_missing():
        say(missing)
    say("report: " + ", ".join(str(path) for path in paths))
    if as_json:
        answer(document)
    return {"PASSED": 0, "FAILED": 1}.get(document["verdict"], CouldNotRunError.exit_code)


@cli.command(name="check", short_help="Show what a network file holds and who can take it.")
@click.argument("file", metavar="RUN|FILE", type=click.Path(path_type=Path))
@command
@reads()
def check_(file: Path, reading: Any, as_json: bool) -> int:
    """Show what a network file holds, what it leaves open, and who can take it.

    Exit code 0: it can be read; 2: it cannot, and the error names the place.
    """
    from . import overview

    path = file / "network.nir" if file.is_dir() else file
    found = overview.overview(path, reading)
    for line in overview.lines(found):
        say(line) if as_json else click.echo(line)
    if as_json:
        answer(found)
    return RequestError.exit_code if "problem" in found else 0


@cli.command(name="list", short_help="Show what there is: runtimes, targets, rules, data, chips.")
@click.argument("kind", required=False, metavar="[KIND]", type=click.Choice(LISTS))
@command
def list_(kind: str | None, as_json: bool) -> None:
    """Show what there is: runtimes, targets, rules, models, data sets, semantics, chips."""
    from . import plugins
    from .hardware.chip_file import chip_names
    from .network import semantics

    kinds = [kind] if kind else list(LISTS)
    others = {"chips": chip_names, "semantics": semantics.summaries}
    found = {k: others[k]() if k in others else plugins.summaries(k) for k in kinds}
    if as_json:
        answer(found)
        return
    for name, members in found.items():
        click.echo(f"{name}:")
        width = max(map(len, members), default=0)
        for member, line in members.items():
            click.echo(f"  {member:<{width}}  {line}")


cli.add_command(lava)


def main() -> None:
    """Entry point of ``snnpipe``."""
    notes = logging.StreamHandler()
    notes.setFormatter(logging.Formatter("note: %(message)s"))
    logging.getLogger("snnpipe").addHandler(notes)
    as_json = "--json" in sys.argv
    # An exception, so that what is half-written is taken away on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        cli.main(prog_name="snnpipe", standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        fail(INTERRUPTED, "E_INTERRUPTED", "interrupted", as_json)
    except click.ClickException as error:
        fail(*told(error), as_json)
    except OSError as error:
        fail(*told(error), as_json)
