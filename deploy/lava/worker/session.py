"""The processes of a session and the shared memory they hold, as Linux tells it in /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path

SHARED = Path("/dev/shm")  # noqa: S108 - where Linux shows shared memory
_SEGMENT = re.compile(rf"{SHARED}/(psm_\w+)")
_TRACKER = b"multiprocessing.resource_tracker"
_ZOMBIE = "Z"


def pids() -> list[int]:
    """Every process that there is."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def members(session: int) -> list[int]:
    """The living processes of a session; zombies are dead."""
    found = []
    for pid in pids():
        try:
            # The name in brackets may hold anything; the state follows the last bracket.
            state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        if int(state[3]) == session and state[0] != _ZOMBIE:
            found.append(pid)
    return found


def is_tracker(pid: int) -> bool:
    """Whether a process is Python's resource tracker."""
    try:
        return _TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def segments_of(processes: list[int]) -> set[str]:
    """Names below /dev/shm of the segments that processes have mapped."""
    found: set[str] = set()
    for pid in processes:
        try:
            found.update(_SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text(errors="replace")))
        except OSError:
            continue
    return found


def own_segments() -> list[str]:
    """Those of this session."""
    return sorted(segments_of(members(os.getsid(0))))
