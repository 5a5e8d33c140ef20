"""From events to frames: how many there were at each place, one frame a time step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .event_files import Events, Integers


def by_duration(events: Events, begin: int, end: int, steps: int) -> Integers:
    """The frame (n,) of each event where ``steps`` frames divide the microseconds from ``begin`` to
    below ``end`` equally; outside of them -1 or ``steps`` and more."""
    return (events.time - begin) * steps // (end - begin)


def by_count(events: Events, steps: int) -> Integers:
    """The frame (n,) of each event where each of ``steps`` frames gets n // steps of them in their
    order, the last one also what is left over
    (Fang et al., arXiv 2007.05785)."""
    each = max(len(events) // steps, 1)
    return np.minimum(np.arange(len(events)) // each, steps - 1)


def frames(
    events: Events,
    frame: Integers,
    steps: int,
    shape: tuple[int, int, int],
    levels: int,
    sensor: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Events counted per frame and place, (T, 2, H, W), OFF in channel 0 and ON in channel 1, each
    count cut to ``levels``.

    A ``sensor`` (H, W) larger than ``shape``'s is divided into as many cells, of nearly one size,
    whose events add up. Events of frames below 0 or beyond T are left out.
    """
    size = shape[1:]
    height, width = sensor or size
    kept = (frame >= 0) & (frame < steps)
    y, x = events.y[kept] * size[0] // height, events.x[kept] * size[1] // width
    places = np.ravel_multi_index((frame[kept], events.polarity[kept], y, x), (steps, *shape))
    counts = np.bincount(places, minlength=steps * shape[0] * size[0] * size[1])
    return counts.clip(max=levels).astype(np.uint8).reshape(steps, *shape)
