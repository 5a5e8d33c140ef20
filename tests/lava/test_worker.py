"""However Lava ends, it ends, and nothing of it is left: processes and shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe.deploy.lava.process import Worker
from snnpipe.deploy.lava.worker.session import SHARED, is_tracker, members, pids, segments_of
from snnpipe.errors import CouldNotRunError

pytestmark = pytest.mark.lava

SPIKES = np.ones((3, 20), np.int32)
WEIGHTS = np.array([[4, 2, -6], [8, 6, 4]], np.int32)
ARRAYS = {"spikes": SPIKES, "weights": WEIGHTS}
ENDLESS = 200_000


def chain(steps: int, **lif: Any) -> dict[str, Any]:
    neurons = {"du": 4095, "dv": 0, "vth": 10, **lif}
    return {"program": "chain", "steps": steps, "dense": {}, "lif": neurons}


def shared() -> set[str]:
    return {path.name for path in SHARED.glob("psm_*")}


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Watched:
    """A worker's session, and what of it is left."""

    def __init__(self, session: int, before: set[str]) -> None:
        self.session, self.before, self.held = session, before, set[str]()

    def look(self) -> None:
        self.held |= segments_of(members(self.session))

    def gone(self) -> bool:
        """No process of the session; its segments, and new ones that nobody has mapped, away."""
        new = shared() - self.before
        orphans = new - segments_of(pids()) if new else set()
        return not members(self.session) and not (self.held & shared()) and not orphans

    def is_gone(self) -> bool:
        return eventually(self.gone, 8)


@pytest.fixture
def worker(lava_python: Path) -> Iterator[Worker]:
    started = Worker.start(lava_python)
    yield started
    started.close()


@pytest.fixture
def watched(worker: Worker) -> Watched:
    return Watched(worker.process.pid, shared())


class Asking:
    """A request in a thread of its own, while the test does harm."""

    def __init__(self, worker: Worker, request: dict[str, Any], deadline: float) -> None:
        self.error: CouldNotRunError | None = None

        def ask() -> None:
            try:
                worker.ask(request, ARRAYS, deadline)
            except CouldNotRunError as error:
                self.error = error

        self.thread = threading.Thread(target=ask)
        self.thread.start()

    def ended(self) -> CouldNotRunError | None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.error


def in_the_middle(worker: Worker, watched: Watched, deadline: float = 5) -> Asking:
    """A long run of Lava's processes that is under way."""
    asking = Asking(worker, chain(ENDLESS), deadline)
    assert eventually(lambda: bool(worker.segments), 15)
    watched.look()
    assert len(watched.held) >= 8
    assert len(members(watched.session)) >= 7
    return asking


def test_a_run_that_ends_leaves_nothing(worker: Worker, watched: Watched) -> None:
    for _ in range(2):
        result, arrays = worker.ask(chain(20), ARRAYS, 20)
    assert (result, list(arrays)) == ({}, ["s"])
    assert arrays["s"].tolist() == [[0] * 20, [0, *[1] * 19]]
    assert worker.segments
    assert not worker.segments & shared()
    assert worker.open
    worker.close()
    worker.close()
    assert worker.process.returncode == 0
    assert watched.gone()


def test_an_exception_in_a_model_ends_at_the_deadline(worker: Worker, watched: Watched) -> None:
    """Lava's own `run` never returns from this one: a decay that is no whole number."""
    asking = Asking(worker, chain(20, du=0.5), 6)
    assert eventually(lambda: len(members(watched.session)) >= 7, 5)
    watched.look()
    error = asking.ended()
    assert error is not None
    assert error.code == "E_DEADLINE"
    assert "program 'chain': no sign of life for 6 s" in error.message
    assert not worker.open
    assert watched.gone()


def test_an_exception_in_a_program_is_told(worker: Worker, watched: Watched) -> None:
    with pytest.raises(CouldNotRunError, match=r"program 'chain': .*2D matrix") as caught:
        worker.ask(chain(20), {**ARRAYS, "weights": WEIGHTS[0]}, 20)
    assert caught.value.code == "E_LAVA"
    assert not worker.open
    assert watched.gone()


def test_a_model_that_is_killed_ends_at_the_deadline(worker: Worker, watched: Watched) -> None:
    asking = in_the_middle(worker, watched)
    models = [pid for pid in members(watched.session) if not is_tracker(pid)]
    os.kill(max(models), signal.SIGKILL)
    error = asking.ended()
    assert error is not None
    assert error.code == "E_DEADLINE"
    assert watched.gone()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_takes_all_with_it(
    worker: Worker, watched: Watched, number: signal.Signals
) -> None:
    asking = in_the_middle(worker, watched, 60)
    os.kill(worker.process.pid, number)
    error = asking.ended()
    assert error is not None
    assert f"it died (signal {int(number)})" in error.message
    assert watched.is_gone()


def test_when_all_were_killed_at_once_the_segments_we_were_told_of_go(
    worker: Worker, watched: Watched
) -> None:
    asking = in_the_middle(worker, watched, 60)
    os.killpg(worker.process.pid, signal.SIGKILL)
    assert asking.ended() is not None
    assert watched.is_gone()


PARENT = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from snnpipe.deploy.lava.process import Worker

    with Worker.start(Path(sys.argv[1])) as worker:
        print(worker.process.pid, flush=True)
        neurons = {"du": 4095, "dv": 0, "vth": 10}
        request = {"program": "chain", "steps": 200_000, "dense": {}, "lif": neurons}
        arrays = {"spikes": np.ones((3, 20), np.int32), "weights": np.ones((2, 3), np.int32)}
        worker.ask(request, arrays, 60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_we_are_killed_nothing_is_left(lava_python: Path, number: signal.Signals) -> None:
    """SIGINT is Ctrl-C, and cleans up; the others leave no time to: what we started dies by itself,
    and Python's resource tracker takes the memory away."""
    before = shared()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(lava_python)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        watched = Watched(int(parent.stdout.readline()), before)
        assert eventually(lambda: len(members(watched.session)) >= 7, 15)
        time.sleep(0.5)
        watched.look()
        assert watched.held
        parent.send_signal(number)
        assert parent.wait(15) == -number
    assert watched.is_gone()


def test_a_request_that_is_none_and_an_interpreter_that_is_none(
    worker: Worker, watched: Watched, tmp_path: Path
) -> None:
    with pytest.raises(CouldNotRunError, match="there is no program 'nothing'; expected models"):
        worker.ask({"program": "nothing"}, {}, 5)
    with pytest.raises(CouldNotRunError, match="does not start"):
        Worker.start(tmp_path / "python")
    with pytest.raises(CouldNotRunError, match=r"its start: it died \(exit code 125\): ") as died:
        Worker.start(Path("/usr/bin/env"))
    assert died.value.code == "E_LAVA"
    assert watched.gone()


def test_a_watch_would_see_what_is_left(worker: Worker, watched: Watched) -> None:
    asking = in_the_middle(worker, watched, 60)
    assert not watched.gone()
    worker.process.kill()
    asking.ended()
    assert watched.is_gone()
    left = SHARED / f"psm_left{os.getpid()}"
    left.touch()
    try:
        assert not watched.gone()
    finally:
        left.unlink()
    assert watched.is_gone()
