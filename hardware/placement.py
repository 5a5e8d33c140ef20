"""Cores on tiles: a snake through the grid, then swaps while hops grow cheaper.

Spikes travel along rows and columns of tiles. Traffic is taken as uniform: every neuron fires once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .chip import Chip
from .reach import Counts

LARGEST_SWAP = 256
"""Above so many cores the snake stays as it is."""
_PASSES = 10
_WORTH = 1000
"""Swaps stop when a pass gains less than one part in so many."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where each core lies, int64 (cores,): its chip, and its tile's column and row there (0 where
    the chip's grid is not known, ``hops`` False).
    """

    chip: Counts
    x: Counts
    y: Counts
    hops: bool

    def distances(self, core: int) -> tuple[Counts, Counts, Counts]:
        """From a core to every core: hops east or west, north or south (0 to another chip), and
        whether the chip's border lies between."""
        other = (self.chip != self.chip[core]).astype(np.int64)
        here = 1 - other
        return abs(self.x - self.x[core]) * here, abs(self.y - self.y[core]) * here, other


def _snake(chip: Chip, count: int) -> Places:
    """Cores in their order, tile after tile, every second row of tiles backwards."""
    limits = chip.limits
    per_chip = limits.cores or max(count, 1)
    place = np.arange(count, dtype=np.int64)
    on_chip, zeros = place % per_chip, np.zeros(count, np.int64)
    if limits.grid is None or limits.cores_per_tile is None:
        return Places(place // per_chip, zeros, zeros, hops=False)
    tile, width = on_chip // limits.cores_per_tile, limits.grid.size[0]
    row, column = tile // width, tile % width
    column = np.where(row % 2 == 0, column, width - 1 - column)
    return Places(place // per_chip, column, row, hops=True)


def _weights(chip: Chip) -> tuple[int, int]:
    """What a hop costs along each axis, in whole numbers; alike where no price is published."""
    prices = chip.energy.get("", {})
    pair = prices.get("hop_ew_pj"), prices.get("hop_ns_pj")
    if pair[0] is None or pair[1] is None:
        return 1, 1
    return int(pair[0].value * 1000), int(pair[1].value * 1000)


def _swapped(traffic: Counts, cost: Counts) -> Counts:
    """Which place each core takes, from the order they are in: pairs change places while the sum
    of traffic times ``cost`` (places, places) falls. Whole numbers, one order: one answer.
    """
    both = traffic + traffic.T
    np.fill_diagonal(both, 0)
    place = np.arange(len(both))
    spent = both @ cost  # what each core would spend at each place
    total = int(spent.diagonal().sum())
    for _ in range(_PASSES):
        before = total
        for i in range(len(both)):
            here = spent[np.arange(len(both)), place]
            change = (
                spent[i, place] + spent[:, place[i]] - here[i] - here
                + 2 * both[i] * cost[place[i], place]
            )  # fmt: skip
            j = int(change.argmin())
            if change[j] >= 0:
                continue
            moved = cost[place[j]] - cost[place[i]]
            spent = spent + np.outer(both[:, i] - both[:, j], moved)
            place[[i, j]] = place[[j, i]]
            total += 2 * int(change[j])
        if (before - total) * _WORTH <= before:
            break
    return place


def place_cores(chip: Chip, count: int, traffic: Callable[[], Counts]) -> Places:
    """Where ``count`` cores lie. ``traffic``: messages from core to core, int64 (cores, cores),
    which grow with the square and are asked for only where cores change places."""
    places = _snake(chip, count)
    tiled = chip.limits.cores_per_tile or 1
    one_chip = not places.chip.any()
    if not places.hops or not one_chip or not tiled < count <= LARGEST_SWAP:
        return places
    east, north = _weights(chip)
    cost = east * abs(places.x[:, None] - places.x) + north * abs(places.y[:, None] - places.y)
    order = _swapped(traffic(), cost)
    return Places(places.chip[order], places.x[order], places.y[order], hops=True)
