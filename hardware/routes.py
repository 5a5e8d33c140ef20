"""The way of every spike over the cores: messages, hops and borders, exact for each neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..network.layers import Network
from .cutting import Cut
from .demand import Uncut
from .placement import Places
from .reach import Counts, Reach, image, tables


@dataclass(frozen=True, eq=False)
class Routes:
    """What one spike of each element of a source causes, int64 of the source's shape: messages
    (cores it goes to), hops east or west, hops north or south, messages to another chip."""

    messages: Counts
    hops_ew: Counts
    hops_ns: Counts
    interchip: Counts


def _offsets(cut: Mapping[str, Cut]) -> dict[str, int]:
    """The number of each layer's first core."""
    first, total = {}, 0
    for name, one in cut.items():
        first[name] = total
        total += one.count
    return first


def traffic(uncut_layers: Mapping[str, Uncut], cut: Mapping[str, Cut]) -> Counts:
    """Messages from core to core when every neuron fires once, int64 (cores, cores)."""
    first = _offsets(cut)
    total = np.zeros((sum(one.count for one in cut.values()),) * 2, np.int64)
    for target, own in uncut_layers.items():
        for source, parts in own.reaches.items():
            if source not in cut:
                continue  # from the host
            here, there = cut[source], cut[target]
            sent = np.zeros((here.count, there.count), np.int64)
            for sign, axes in tables(parts, there.tiles):
                by_axis = [
                    np.add.reduceat(table, [span.start for span in spans], axis=0)
                    for table, spans in zip(axes, here.tiles, strict=True)
                ]
                one = np.einsum("ax,by,cz->abcxyz", *by_axis)
                sent += sign * one.reshape(here.count, there.count)
            at, to = first[source], first[target]
            total[at : at + here.count, to : to + there.count] += sent
    return total


def _added(
    total: dict[str, Counts],
    parts: tuple[Reach, ...],
    here: tuple[Cut, int] | None,
    there: tuple[Cut, int],
    places: Places,
) -> None:
    """Add one target layer's part to the routes of a source; ``here`` None: the host sends."""
    cut, first = there
    grid = tuple(len(spans) for spans in cut.tiles)
    cores = slice(first, first + cut.count)
    for sign, axes in tables(parts, cut.tiles):
        sums = (table.sum(axis=1) for table in axes)
        total["messages"] += sign * np.einsum("a,b,c->abc", *sums)
        if here is None or not (places.hops or places.chip.any()):
            continue
        for number, at in enumerate(np.ndindex(*(len(spans) for spans in here[0].tiles))):
            box = tuple(spans[n] for spans, n in zip(here[0].tiles, at, strict=True))
            mine = [table[span] for table, span in zip(axes, box, strict=True)]
            far = places.distances(here[1] + number)
            for name, distance in zip(("hops_ew", "hops_ns", "interchip"), far, strict=True):
                weight = distance[cores].reshape(grid)
                if weight.any():
                    along = np.einsum("ax,xyz->ayz", mine[0], weight)
                    along = np.einsum("by,ayz->abz", mine[1], along)
                    total[name][box] += sign * np.einsum("cz,abz->abc", mine[2], along)


def routes_of(
    network: Network,
    uncut_layers: Mapping[str, Uncut],
    cut: Mapping[str, Cut],
    places: Places,
) -> dict[str, Routes]:
    """The routes of the input and of every layer."""
    first = _offsets(cut)
    found = {}
    for name in [network.input, *network.by_name]:
        shape = network.shape_of(name)
        total = {part: np.zeros(image(shape), np.int64) for part in Routes.__dataclass_fields__}
        here = (cut[name], first[name]) if name in cut else None
        for target, own in uncut_layers.items():
            if name in own.reaches:
                _added(total, own.reaches[name], here, (cut[target], first[target]), places)
        found[name] = Routes(**{part: counts.reshape(shape) for part, counts in total.items()})
    return found
