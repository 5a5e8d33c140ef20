"""Nothing of Lava survives: its processes are ended, its shared memory is taken away.

Killing the whole session at once would leave the shared memory for ever: Python's resource tracker
unlinks it once all others are gone, so it is left to end by itself. What it could not unlink is
unlinked here: names that the session itself held, and that nobody has mapped any more.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Collection

from ...errors import CouldNotRunError
from .worker.session import SHARED, is_tracker, members, pids, segments_of

PATIENCE = 3.0
"""Seconds for killed processes to go, and again for the tracker to unlink, and leave."""


def require_linux() -> None:
    """Raise CouldNotRunError (E_PLATFORM) where nothing could be cleaned up."""
    if sys.platform != "linux":
        raise CouldNotRunError(
            "E_PLATFORM",
            f"Lava's worker needs Linux to be cleaned up after, this is {sys.platform}",
        )


def clean(session: int, told: Collection[str] = ()) -> None:
    """End every process of a session; unlink what it held, and the names it ``told`` us of."""
    found = members(session)
    names = {*told, *segments_of(found)}
    # One that was being forked while we looked is met in the next round.
    _until(lambda: not _kill([p for p in members(session) if not is_tracker(p)]))
    _until(lambda: not members(session))
    _kill(members(session))
    left = [name for name in sorted(names) if (SHARED / name).exists()]
    held = segments_of(pids()) if left else set()
    for name in left:
        if name not in held:
            (SHARED / name).unlink(missing_ok=True)


def _kill(processes: list[int]) -> list[int]:
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return processes


def _until(done: Callable[[], bool]) -> None:
    """Wait until it is so, at most `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
