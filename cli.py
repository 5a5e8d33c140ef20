"""The command line: what did the user ask for? Every import of a room stands inside its command."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import __version__, runs
from .errors import CouldNotRunError, RequestError, SnnpipeError, nearest

if TYPE_CHECKING:
    pass

BUG, INTERRUPTED = 70, 130

TARGETS = ("nir", "onnx", "lava")
RUNTIMES = ("torch", "onnx", "event", "loihi")
LISTS = ("runtimes", "targets", "rules", "surrogates", "models", "data", "chips")

RUN = click.argument("run", required=False, metavar="[RUN|FILE]", type=click.Path(path_type=Path))
SEMANTICS = click.option(
    "--semantics",
    metavar="NAME",
    help="How to read a .nir file that brings no contract (nir-strict, snnpipe).",
)
DATA = click.option(
    "--data",
    "data_folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the data set lies. Default: $SNNPIPE_DATA, then a download.",
)


def say(text: str) -> None:
    """A line for the person at the terminal; stdout is left to --json."""
    click.echo(text, err=True)


def answer(document: Mapping[str, Any]) -> None:
    """The one document that --json promises."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Give a command --json and --debug, one-sentence errors, and its exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @wraps(function)
    def run(as_json: bool, debug: bool, **options: Any) -> NoReturn:
        try:
            sys.exit(function(as_json=as_json, **options) or 0)
        except SnnpipeError as error:
            if debug:
                raise
            _fail(error.exit_code, error.code, error.message, as_json)
        except KeyboardInterrupt:
            _fail(INTERRUPTED, "E_INTERRUPTED", "interrupted", as_json)
        except click.ClickException:
            raise
        except Exception as error:
            if debug:
                raise
            what = f"{type(error).__name__}: {error}"
            _fail(BUG, "E_BUG", f"a bug of snnpipe: {what}; --debug shows where", as_json)

    return run


def _fail(exit_code: int, code: str, message: str, as_json: bool) -> NoReturn:
    say(f"error: {message}")
    if as_json:
        answer({"error": {"exit": exit_code, "code": code, "message": message}})
    sys.exit(exit_code)


def _names(text: str, known: tuple[str, ...], kind: str) -> list[str]:
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
        raise RequestError("E_PLUGIN", f"name at least one of {', '.join(known)}")
    return list(dict.fromkeys(names))


class _Commands(click.Group):
    """Suggests the nearest command for one it does not know."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(error.message + nearest(args[0], self.commands), ctx) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="snnpipe")
def cli() -> None:
    """Train spiking networks, export them, and prove that what runs is what was trained.

    \b
    snnpipe train recipes/digits.toml      a run folder below runs/
    snnpipe export --target nir,onnx,lava  its forms for CPU, ONNX and Loihi
    snnpipe verify                         the verdict, and report.html
    """  # noqa: D301 - \b keeps click from wrapping the lines below it


@cli.command()
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="train.lr=0.01 …")
@DATA
@click.option("--out", metavar="RUN", type=click.Path(path_type=Path), help="The run folder.")
@command
def train(
    recipe: Path,
    overrides: tuple[str, ...],
    data_folder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train a network from a recipe into a new run folder."""
    from .train.recipe import read_recipe

    settings = read_recipe(recipe, overrides)
    folder = out or runs.new_run(recipe.stem)
    if (folder / "recipe.toml").exists():
        raise RequestError("E_RUN", f"{folder} holds a run already; name another with --out")
    # Threads that spin while they wait cost a shared machine several times the work itself.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from .train.run import train_run
    except ModuleNotFoundError as error:
        raise _missing(error, "train") from error
    summary = train_run(settings, data_folder, folder)
    if as_json:
        answer({"run": str(folder), **summary})
    say(f"{folder}: {_trained(summary, settings.train.steps)}")
    say(f"next: snnpipe export {folder} --target {','.join(TARGETS)}")


def _missing(error: ModuleNotFoundError, extra: str) -> CouldNotRunError:
    return CouldNotRunError(
        "E_MISSING",
        f"this needs the package '{error.name}': pip install 'snnpipe[{extra}]'",
    )


def _trained(summary: Mapping[str, Any], steps: int) -> str:
    last, best = summary["test"]["last"], summary["test"]["best"]
    return (
        f"test accuracy {100 * last['correct'] / last['n']:.2f} % at T = {steps} "
        f"(last epoch, n = {last['n']:,}); {100 * best['correct'] / best['n']:.2f} % for epoch "
        f"{summary['best_epoch']}, the best by validation"
    )


@cli.command()
@RUN
@click.option("--target", "targets", default=",".join(TARGETS), show_default=True, metavar="NAMES")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="For a bare FILE.")
@SEMANTICS
@command
def export(
    run: Path | None, targets: str, out: Path | None, semantics: str | None, as_json: bool
) -> None:
    """Write a trained network for other runtimes: NIR, ONNX, Loihi integers."""
    from . import commands
    from .export.write import write_targets
    from .network.nir_file import read_network

    names = _names(targets, TARGETS, "targets")
    where = runs.place(run)
    recipe = None
    folder = out or where.artefacts
    if where.is_run and (where.folder / "model.safetensors").is_file():
        try:
            from .export import lift  # noqa: F401 - to say in time what is missing
        except ModuleNotFoundError as error:
            raise _missing(error, "train") from error
        commands.lift_run(where)
        recipe = where.recipe
    network = read_network(where.network, semantics)
    written = write_targets(network, names, folder, recipe)
    if as_json:
        answer(
            {"network": str(where.network), "artefacts": {k: str(v) for k, v in written.items()}}
        )
    for name, path in written.items():
        say(f"{name}: {path}")
    say(f"next: snnpipe verify {where.argument}")


@cli.command(name="run")
@RUN
@click.option("--on", "runtime", default="event", show_default=True, metavar="NAME")
@click.option(
    "--input",
    "input_file",
    metavar="X.npy",
    type=click.Path(path_type=Path),
    help="(B, *shape) or (T, B, *shape); whole numbers are levels. Default: random.",
)
@click.option("--steps", type=click.IntRange(1, 100_000), help="Default: the contract's.")
@click.option(
    "--samples",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="How many random inputs.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), metavar="N")
@click.option(
    "--save", metavar="OUT.npz", type=click.Path(path_type=Path), help="Outputs and packed spikes."
)
@SEMANTICS
@command
def run_(
    run: Path | None,
    runtime: str,
    input_file: Path | None,
    steps: int | None,
    samples: int,
    seed: int,
    save: Path | None,
    semantics: str | None,
    as_json: bool,
) -> None:
    """Run a network here and say what it did."""
    from . import commands

    (name,) = _names(runtime, RUNTIMES, "runtimes")[:1]
    where = runs.place(run)
    if semantics is not None and steps is None:
        raise RequestError(
            "E_STEPS", "a file without a contract does not say how long to run: --steps"
        )
    network, opened = commands.open_runtime(where, name, semantics)
    x, source = commands.inputs(network, input_file, samples, seed)
    trace = opened.run(network.contract.frames(x), steps or network.contract.steps)
    if save is not None:
        commands.save_trace(save, trace)
    summary = commands.summary(network, trace, name, source)
    if as_json:
        answer(summary)
    for line in commands.lines(summary):
        say(line)
    say(f"next: snnpipe verify {where.argument} --on {name}")


@cli.command()
@RUN
@click.option("--on", "runtimes", default=",".join(RUNTIMES), show_default=True, metavar="NAMES")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Default: all test images.")
@click.option("--inputs", "inputs_file", metavar="X.npy", type=click.Path(path_type=Path))
@click.option("--labels", "labels_file", metavar="Y.npy", type=click.Path(path_type=Path))
@DATA
@SEMANTICS
@command
def verify(
    run: Path | None,
    runtimes: str,
    samples: int | None,
    inputs_file: Path | None,
    labels_file: Path | None,
    data_folder: Path | None,
    semantics: str | None,
    as_json: bool,
) -> int:
    """Say whether what runs is what was trained, spike by spike, and what it costs."""
    from . import commands
    from .verify.page import page_missing, write_report

    names = _names(runtimes, RUNTIMES, "runtimes")
    where = runs.place(run)
    labelled = commands.test_set(where, inputs_file, labels_file, data_folder, samples)
    document = commands.verify_run(where, names, labelled, semantics, _bar)
    paths = write_report(document, where.folder)
    if as_json:
        answer(document)
    for line in commands.chain_lines(document):
        say(line)
    if missing := page_missing():
        say(missing)
    say("report: " + ", ".join(str(path) for path in paths))
    say(f"{document['verdict']}: {document['sentence']}")
    failed, stuck = document["verdict"] == "FAILED", document["verdict"] == "COULD_NOT_RUN"
    return 1 if failed else CouldNotRunError.exit_code if stuck else 0


def _bar(total: int, label: str) -> Callable[[int], None]:
    """A progress bar on stderr, silent when that is no terminal."""
    bar = click.progressbar(
        length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    )
    bar.render_progress()

    def done(count: int) -> None:
        bar.update(count - bar.pos)
        if count >= total:
            bar.render_finish()

    return done


@cli.command(name="list")
@click.argument("kind", required=False, type=click.Choice(LISTS))
@command
def list_(kind: str | None, as_json: bool) -> None:
    """Show what there is: runtimes, targets, rules, models, data sets, chips."""
    from . import plugins
    from .hardware.chip import chip_names

    kinds = [kind] if kind else list(LISTS)
    found = {k: chip_names() if k == "chips" else plugins.summaries(k) for k in kinds}
    if as_json:
        answer(found)
        return
    for name, members in found.items():
        click.echo(f"{name}:")
        width = max(map(len, members), default=0)
        for member, line in members.items():
            click.echo(f"  {member:<{width}}  {line}")


def main() -> None:
    """Entry point of ``snnpipe``."""
    notes = logging.StreamHandler()
    notes.setFormatter(logging.Formatter("note: %(message)s"))
    logging.getLogger("snnpipe").addHandler(notes)
    cli.main(prog_name="snnpipe")
