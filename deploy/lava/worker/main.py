"""The worker's loop: requests in on standard input, answers out, until the parent goes away.

Nothing that Lava forks may outlive its parent: every child asks the kernel to be killed with it
before Lava is imported, and so does the worker itself. Killed that way, Python's resource tracker
(which is no fork of ours) is left, finds its pipe closed and takes the shared memory away.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any, BinaryIO

from .frames import decode, encode
from .session import own_segments

PROGRAMS = ("models", "chain", "batched", "standard")
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def _die_with(parent: int) -> None:
    """Ask to be killed when the parent dies, and leave at once when it already did."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _hold_children(requests: BinaryIO, answers: BinaryIO) -> None:
    """Let every fork die with its parent, and hold none of our pipes open: the parent would wait
    for an answer of a worker that is gone."""
    forking = [os.getpid()]
    ends = (requests.fileno(), answers.fileno())

    def in_child() -> None:
        _die_with(forking[0])
        for end in ends:
            os.dup2(2, end)

    os.register_at_fork(before=lambda: forking.__setitem__(0, os.getpid()), after_in_child=in_child)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError
    return found


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Run one program after the other until there are no requests any more."""

    def reply(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        answers.write(encode(header, arrays))
        answers.flush()

    while True:
        try:
            request, arrays = decode(lambda count: _exactly(requests, count))
        except EOFError:
            return
        try:
            name = request["program"]
            if name not in PROGRAMS:
                raise ValueError(f"there is no program {name!r}; expected {', '.join(PROGRAMS)}")
            program = importlib.import_module(f".{name}", __package__)
            result, found = program.run(
                request, arrays, lambda: reply({"segments": own_segments()}, {})
            )
        except Exception as error:  # noqa: BLE001 - told to the parent, who raises
            traceback.print_exc()
            reply({"error": f"{type(error).__name__}: {error}"}, {})
        else:
            reply({"result": result}, found)


def main(parent: int) -> None:
    """Entry point; ``parent`` is the process that started this one."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # Lava prints; standard output is ours
    _hold_children(requests, answers)
    answers.write(encode({"ready": sys.version.split()[0]}, {}))
    answers.flush()
    serve(requests, answers)
    # Not the interpreter's own exit: it would wait for whatever Lava left running.
    os._exit(0)
