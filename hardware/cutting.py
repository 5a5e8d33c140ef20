"""Cutting a layer into tiles, one for each core: the fewest that fit, then the fewest messages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..network.layers import Shape
from .chip import Limits
from .demand import (
    CORE_LIMITS,
    Known,
    Storage,
    Uncut,
    axons_in,
    least_bits,
    needs,
    of_one_neuron,
)
from .reach import Counts, Cuts, cuts


@dataclass(frozen=True)
class Excess:
    """A limit that a layer breaks however it is cut."""

    layer: str
    limit: str
    needed: int
    allowed: int

    def sentence(self) -> str:
        """One sentence: layer, limit, need, have."""
        return (
            f"layer '{self.layer}' breaks the limit {self.limit}: it needs {self.needed:,}, the "
            f"chip has {self.allowed:,}"
        )


@dataclass(frozen=True, eq=False)
class Cut:
    """A layer in tiles, and what each needs: int64 (channel, row, column ranges) by limit."""

    tiles: Cuts
    needs: dict[str, Counts]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(len(ranges) for ranges in self.tiles)


def excesses(name: str, found: dict[str, Counts], limits: Limits) -> list[Excess]:
    """The core limits that the largest tile breaks."""
    broken = []
    for limit in CORE_LIMITS:
        allowed, needed = getattr(limits, limit), int(found[limit].max()) if limit in found else 0
        if allowed is not None and needed > allowed:
            broken.append(Excess(name, limit, needed, allowed))
    return broken


def _ways(count: int, size: Shape) -> Iterator[tuple[int, int, int]]:
    """Every way to cut an image into ``count`` tiles: parts of channels, rows and columns."""
    for channels in range(1, min(count, size[0]) + 1):
        if count % channels == 0:
            rest = count // channels
            for rows in range(1, min(rest, size[1]) + 1):
                if rest % rows == 0 and rest // rows <= size[2]:
                    yield channels, rows, rest // rows


def _largest(size: Shape, way: tuple[int, int, int]) -> int:
    return math.prod(-(-n // parts) for n, parts in zip(size, way, strict=True))


def _least(layer: Uncut, limits: Limits, storage: Storage, whole: dict[str, Counts]) -> int:
    """Fewer tiles than this cannot be enough: what is shared out evenly must fit."""
    parts = [1]
    for limit in ("neurons_per_core", "axons_out", "thresholds_per_core"):
        allowed = getattr(limits, limit)
        if allowed:
            parts.append(-(-int(whole[limit].max()) // allowed))
    if limits.syn_bits_per_core:
        parts.append(-(-least_bits(layer, storage) // limits.syn_bits_per_core))
    return min(max(parts), layer.size)


def cut_layer(layer: Uncut, limits: Limits, storage: Storage) -> tuple[Cut, list[Excess]]:
    """The cut into the fewest tiles that fit; of those of one count, the one with the fewest
    messages when every source fires once, then the smallest busiest core.

    When not even single neurons fit: the layer whole, and the limits that are broken.
    """
    one = cuts(layer.image, (1, 1, 1))
    whole = needs(layer, one, limits, storage)
    if not excesses(layer.name, whole, limits):
        return Cut(one, whole), []
    broken = excesses(layer.name, of_one_neuron(layer, limits, storage), limits)
    if broken:
        return Cut(one, whole), broken
    known: Known = {}
    for count in range(_least(layer, limits, storage, whole), layer.size):
        kept: list[tuple[tuple[int, int], Cut]] = []
        for way in _ways(count, layer.image):
            if limits.neurons_per_core and _largest(layer.image, way) > limits.neurons_per_core:
                continue
            tiles = cuts(layer.image, way)
            if limits.axons_in and int(axons_in(layer, tiles).max()) > limits.axons_in:
                continue
            found = needs(layer, tiles, limits, storage, known)
            if not excesses(layer.name, found, limits):
                messages = int(found["axons_in"].sum())
                kept.append(((messages, int(found["axons_in"].max())), Cut(tiles, found)))
        if kept:
            return min(kept, key=lambda pair: pair[0])[1], []
    finest = cuts(layer.image, layer.image)
    return Cut(finest, needs(layer, finest, limits, storage)), []
