"""What a person or a program sees of a command: lines, one JSON document, errors, exit codes."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

import click

from .errors import CouldNotRunError, RequestError, SnnpipeError

BUG, INTERRUPTED, CLOSED_PIPE, TERMINATED = 70, 130, 141, 143
EXTRAS = {"torch": "train", "safetensors": "train", "sklearn": "train", "pooch": "train"}
"""Package to the extra that brings it."""


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
            code = function(as_json=as_json, **options) or 0
            sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 - told, with its own exit code
            if debug:
                traceback.print_exc()
            fail(*told(error), as_json)
        except KeyboardInterrupt:
            fail(INTERRUPTED, "E_INTERRUPTED", "interrupted", as_json)
        sys.exit(code)

    return run


def told(error: Exception) -> tuple[int, str, str]:
    """Exit code, code and sentence of an error."""
    if isinstance(error, SnnpipeError):
        return error.exit_code, error.code, error.message
    if isinstance(error, click.ClickException):
        return RequestError.exit_code, "E_USAGE", error.format_message().rstrip(".")
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get(str(error.name), "all")
        what = f"this needs the package '{error.name}': pip install 'snnpipe[{extra}]'"
        return CouldNotRunError.exit_code, "E_MISSING", what
    if isinstance(error, MemoryError):
        return CouldNotRunError.exit_code, "E_MEMORY", f"not enough memory: {error}"
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE, "E_PIPE", "the reader of the output went away"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return CouldNotRunError.exit_code, "E_WRITE", "no space left for the output"
    what = f"a bug of snnpipe: {type(error).__name__}: {error}; --debug shows where"
    return BUG, "E_BUG", what


def fail(exit_code: int, code: str, message: str, as_json: bool) -> NoReturn:
    """Say it, and leave; what cannot be said any more must not change the exit code."""
    try:
        say(f"error: {message}")
        if as_json and exit_code != CLOSED_PIPE:
            answer({"error": {"exit": exit_code, "code": code, "message": message}})
        sys.stdout.flush()
    except OSError:
        # Nobody listens, or the disk is full: leave without the interpreter's own flush.
        os._exit(exit_code)
    if exit_code == CLOSED_PIPE:
        os._exit(exit_code)
    sys.exit(exit_code)


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, silent when that is no terminal."""
    hidden = not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"
    bar = click.progressbar(length=total, label=label, file=sys.stderr, hidden=hidden)
    with bar:
        yield lambda count: bar.update(count - bar.pos)
