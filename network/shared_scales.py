"""Few scales for many channels, where a chip's cores hold only a few thresholds each.

The neurons of a layer lie on cores channel by channel, as many whole channels to a core as fit
into it; the channels of one core then share a few scales, and with them thresholds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .layers import Shape
from .scales import few_bits

Wide = NDArray[np.float64]


def core_groups(shape: Shape, neurons_per_core: int) -> list[slice]:
    """The channels of a layer of ``shape`` that lie on one core together, core by core.

    A channel that is larger than a core has cores of its own.
    """
    per_channel = int(np.prod(shape[1:]))
    count = max(1, neurons_per_core // per_channel)
    return [slice(start, start + count) for start in range(0, shape[0], count)]


def shared(scales: Wide, caps: Wide, bits: int, groups: Sequence[slice], most: int) -> Wide:
    """At most ``most`` different scales in each group, near those wanted, (C,).

    Per group the logarithms are split into ranges of least squared distance; a range gets its
    geometric mean, or the least cap in it.
    """
    found = scales.copy()
    for group in groups:
        wanted = scales[group]
        if len(np.unique(wanted)) <= most:
            continue
        order = np.argsort(wanted, kind="stable")
        logs = np.log(wanted[order])
        part = np.empty(len(order))
        for start, end in _ranges(logs, most):
            inside = order[start:end]
            part[inside] = min(np.exp(logs[start:end].mean()), caps[group][inside].min())
        found[group] = few_bits(part, bits)
    return found


def _ranges(values: Wide, most: int) -> list[tuple[int, int]]:
    """Sorted values in ``most`` ranges (start, end) of least squared distance to their means."""
    n = len(values)
    sums, squares = (np.concatenate([[0.0], np.cumsum(values**power)]) for power in (1, 2))
    start, end = np.ogrid[: n + 1, : n + 1]
    count = np.maximum(end - start, 1)
    cost = squares[end] - squares[start] - (sums[end] - sums[start]) ** 2 / count
    cost = np.where(end > start, np.maximum(cost, 0.0), np.inf)
    best, cuts = cost[0], []
    for _ in range(most - 1):
        total = best[:, np.newaxis] + cost
        cuts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    ends, at = [n], n
    for cut in reversed(cuts):
        at = int(cut[at])
        ends.append(at)
    ends.append(0)
    return [(a, b) for b, a in pairwise(ends) if a < b]


def covered(
    options: Sequence[Sequence[float]], silent: Sequence[bool], groups: Sequence[slice], most: int
) -> Wide | None:
    """One of its ``options`` for each channel, at most ``most`` different ones in a group.

    The scale that suits most channels of a group goes to them, of several the largest, then the
    next to those left over. A ``silent`` channel, without weights, takes the nearest scale that
    is not above its own. None where that does not do.
    """
    found = np.zeros(len(options))
    for group in groups:
        channels = list(range(len(options)))[group]
        left = [channel for channel in channels if not silent[channel]]
        chosen: list[float] = []
        while left:
            votes = Counter(scale for channel in left for scale in options[channel])
            scale = max(votes, key=lambda scale: (votes[scale], scale))
            chosen.append(scale)
            for channel in left:
                if scale in options[channel]:
                    found[channel] = scale
            left = [channel for channel in left if not found[channel]]
        for channel in channels:
            if silent[channel]:
                own = options[channel][-1]
                found[channel] = max((s for s in chosen if s <= own), default=own)
        if len(set(found[group])) > most:
            return None
    return found
