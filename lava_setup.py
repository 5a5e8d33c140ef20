"""`snnpipe lava setup`: the private Lava environment, made or found, and said so."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from shlex import quote

import click

from .console import answer, command, say


@click.group(short_help="Set up Lava, Intel's simulator of Loihi, as a referee.")
def lava() -> None:
    """Lava runs in an environment of its own: `setup` makes it, `--on lava` uses it."""


@lava.command(short_help="Make the private environment that --on lava runs in.")
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where. Default: $SNNPIPE_LAVA, then a folder of your user data.",
)
@click.option(
    "--python", metavar="PYTHON", help="The interpreter to make it from. Default: this one."
)
@click.option("--with-netx", is_flag=True, help="With lava-dl's reader of .net files, torch-free.")
@command
def setup(folder: Path | None, python: str | None, with_netx: bool, as_json: bool) -> None:
    """Make the private environment that --on lava runs in, from a download of about 70 MB.

    It is not among your own packages, and ends with a test against the reference, bit for bit. A
    second call finds it and is quick.
    """
    from .deploy.lava.environment import VARIABLE, default_folder
    from .deploy.lava.install import python_version, set_up, size_of

    start = time.monotonic()
    interpreter = python or sys.executable
    version = python_version(interpreter)
    place = (folder or default_folder(version)).absolute()
    made = set_up(place, interpreter, with_netx, say)
    seconds, size = time.monotonic() - start, size_of(made.folder)
    packages = ", ".join(f"{name} {number}" for name, number in made.packages.items())
    say(f"Lava for Python {made.python}: {packages}")
    say(f"{made.folder}: {size / 2**20:.0f} MB, {seconds:.1f} s")
    if made.folder != default_folder():
        say(f"next: export {VARIABLE}={quote(str(made.folder))}")
    else:
        say("next: snnpipe verify --on loihi,lava")
    if as_json:
        answer(
            {
                "folder": str(made.folder),
                "python": made.python,
                "packages": made.packages,
                "netx": made.netx,
                "bytes": size,
                "seconds": seconds,
            }
        )
