"""The parent's side of the worker: it starts it, asks with a deadline, and always cleans up.

Lava's `run` may never return when one of its processes fails, and what it leaves outlives it: so
nothing here waits without an end, and every way out goes through `cleaning.clean`.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from numpy.typing import NDArray

from ...errors import CouldNotRunError
from .cleaning import clean, require_linux
from .worker.frames import Arrays, decode, encode

START_SECONDS = 60.0
"""For an interpreter with numpy to come up, on a busy machine."""
_LEAVE_SECONDS = 3.0
_PART = 1 << 20
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from worker.main import main; "
_PROGRAM += "main(int(sys.argv[2]))"


class Employer(Protocol):
    """A session: the private interpreter of a worker that is its own, or one that somebody else
    closes."""

    python: Path | None
    worker: Worker | None


def worker_of(session: Employer) -> Worker:
    """A session's worker. Its own starts when it is first needed, or was ended, and ends with it.

    Raises CouldNotRunError (E_LAVA) where it does not come up.
    """
    if session.python is not None and (session.worker is None or not session.worker.open):
        session.worker = Worker.start(session.python)
        weakref.finalize(session, session.worker.close)
    if session.worker is None:
        raise TypeError("a session needs an interpreter or a worker")
    return session.worker


@dataclass(eq=False)
class Worker:
    """A worker process, to be closed. It dies with the thread that started it.

    ``segments``: the names of the shared memory that it told us of; ``busy``: whether it owes an
    answer.
    """

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    segments: set[str] = field(default_factory=set)
    busy: bool = True

    @staticmethod
    def start(python: Path) -> Worker:
        """Start the private interpreter; CouldNotRunError (E_LAVA) where it does not come up."""
        require_linux()
        kept = {name: v for name, v in os.environ.items() if not name.startswith("PYTHON")}
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        program = [str(python), "-I", "-B", "-c", _PROGRAM]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the worker
        try:
            process = subprocess.Popen(  # noqa: S603 - the interpreter that setup installed
                [*program, str(Path(__file__).parent), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**kept, **single},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            errors.close()
            raise CouldNotRunError("E_LAVA", f"{python} does not start: {error}") from error
        worker = Worker(process, errors)
        try:
            for pipe in (worker._requests, worker._answers):
                os.set_blocking(pipe, False)
            worker._message(START_SECONDS, "its start")
        except BaseException:
            worker.close()
            raise
        worker.busy = False
        return worker

    def ask(
        self, request: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], deadline: float
    ) -> tuple[dict[str, Any], Arrays]:
        """Run a program; its result and arrays. ``deadline``: seconds without a sign of life.

        Raises CouldNotRunError: E_DEADLINE, E_LAVA when the worker died or the program failed. The
        worker is closed by then, for what failed in Lava may still be running.
        """
        what = f"program '{request.get('program')}'"
        if not self.open:
            raise CouldNotRunError("E_LAVA", f"Lava's worker, {what}: it was ended before")
        try:
            self.busy = True
            self._write(encode(request, arrays), deadline, what)
            while True:
                answer, found = self._message(deadline, what)
                self.segments.update(answer.get("segments", ()))
                if "error" in answer:
                    raise CouldNotRunError("E_LAVA", f"Lava, {what}: {answer['error']}")
                if "result" in answer:
                    self.busy = False
                    return answer["result"], found
        except BaseException:
            self.close()
            raise

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return not self.errors.closed and self.process.poll() is None

    def close(self) -> None:
        """End it and all that it started; a second call does nothing."""
        if self.errors.closed:
            return
        try:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            if not self.busy:
                self._left()
        finally:
            clean(self.process.pid, self.segments)
            self._left()
            self.errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _requests(self) -> int:
        return self.process.stdin.fileno() if self.process.stdin else -1

    @property
    def _answers(self) -> int:
        return self.process.stdout.fileno() if self.process.stdout else -1

    def _left(self) -> bool:
        """Whether it ended by itself, which it does when it can read no more requests."""
        try:
            self.process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _message(self, seconds: float, what: str) -> tuple[dict[str, Any], Arrays]:
        until = time.monotonic() + seconds

        def read(count: int) -> bytes:
            parts = bytearray()
            while len(parts) < count:
                self._wait(selectors.EVENT_READ, until, seconds, what)
                part = os.read(self._answers, min(_PART, count - len(parts)))
                if not part:
                    raise self._died(what)
                parts += part
            return bytes(parts)

        try:
            return decode(read)
        except (ValueError, KeyError, TypeError) as error:
            raise CouldNotRunError("E_LAVA", f"Lava's worker, {what}: {error}") from error

    def _write(self, message: bytes, seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        rest = memoryview(message)
        while rest:
            self._wait(selectors.EVENT_WRITE, until, seconds, what)
            try:
                rest = rest[os.write(self._requests, rest[:_PART]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._died(what) from error

    def _wait(self, event: int, until: float, seconds: float, what: str) -> None:
        """Until the pipe is ready; raises at the deadline."""
        pipe = self._answers if event == selectors.EVENT_READ else self._requests
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            while not selector.select(min(1.0, max(0.0, until - time.monotonic()))):
                if self.process.poll() is not None:
                    raise self._died(what)
                if time.monotonic() >= until:
                    raise CouldNotRunError(
                        "E_DEADLINE",
                        f"Lava's worker, {what}: no sign of life for {seconds:.0f} s; it was ended"
                        f"{self._last_words()}",
                    )

    def _died(self, what: str) -> CouldNotRunError:
        self._left()
        code = self.process.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return CouldNotRunError(
            "E_LAVA", f"Lava's worker, {what}: it died ({how}){self._last_words()}"
        )

    def _last_words(self) -> str:
        """The last line of its standard error, to end a sentence with."""
        size = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, size - 4000))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""
