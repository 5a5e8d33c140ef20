"""Inputs read by threads, ahead of the step that needs them and in its order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .dataset import Lazy

AHEAD = 3
"""Batches that are read or wait to be taken at one time."""
MOST_WORKERS = 16

Images = NDArray[np.uint8]


def workers() -> int:
    """Threads that read: as many as processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    return min(MOST_WORKERS, os.cpu_count() or 1)


def ahead(
    stored: Lazy, batches: Iterable[NDArray[np.int64]], threads: int | None = None
) -> Iterator[Images]:
    """The inputs (B, ...) at the places of each batch, in order, however many threads read them.

    What goes wrong with an input is raised where its batch is due. Closing the iterator stops the
    threads.
    """
    pool = ThreadPoolExecutor(threads or workers(), "reader")
    waiting: deque[list[Future[Images]]] = deque()
    try:
        for places in batches:
            rows = stored.rows[places].tolist()
            waiting.append([pool.submit(stored.item, row) for row in rows])
            if len(waiting) == AHEAD:
                yield _taken(waiting)
        while waiting:
            yield _taken(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(waiting: deque[list[Future[Images]]]) -> Images:
    return np.stack([future.result() for future in waiting.popleft()])
