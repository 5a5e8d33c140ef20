"""Which source elements reach which neurons, axis by axis: channels, rows and columns.

A chain of pools and convolutions, or of a dense map, reaches a neuron exactly when it reaches its
channel, its row and its column, so three small tables say what a large one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from ..network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Network,
    Scale,
    Shape,
    SumPool,
    Synapse,
)
from ..network.shapes import window_count

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
Cuts = tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]
"""Ranges of channels, of rows and of columns; a tile is one of each."""


@dataclass(frozen=True, eq=False)
class Reach:
    """What one synapse reaches. ``axes``: for channels, rows and columns, bool (source elements,
    neurons).

    ``kernel``: stored weights by channel out, where a chip may keep a kernel once a core; 0 where
    there is none. ``exact`` is False for chains that mix axes: there every element is taken to
    reach every neuron, an upper bound.
    """

    source: str
    axes: tuple[Mask, Mask, Mask]
    kernel: int
    exact: bool


def image(shape: Shape) -> Shape:
    """A shape as (channels, rows, columns)."""
    return (*shape, 1, 1)[:3] if len(shape) < 2 else (shape[0], *(1, *shape[1:])[-2:])


def _axis(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Mask:
    windows = window_count(size, kernel, stride, padding, dilation)
    first = np.arange(windows)[None, :] * stride - padding
    offset = np.arange(size)[:, None] - first
    hit = (offset >= 0) & (offset <= (kernel - 1) * dilation) & (offset % dilation == 0)
    return np.asarray(hit)


def _chained(first: Mask, then: Mask) -> Mask:
    return np.asarray((first.astype(np.int32) @ then.astype(np.int32)) > 0)


def _conv(operation: Conv, axes: Sequence[Mask]) -> tuple[Mask, Mask, Mask]:
    out, inner = operation.weight.shape[:2]
    per_group = out // operation.groups
    source_group = np.arange(axes[0].shape[1]) // inner
    channels = source_group[:, None] == (np.arange(out) // per_group)[None, :]
    rows, columns = (
        _axis(axes[1 + n].shape[1], operation.weight.shape[2 + n], operation.stride[n],
              operation.padding[n], operation.dilation[n])
        for n in (0, 1)
    )  # fmt: skip
    return (
        _chained(axes[0], channels),
        _chained(axes[1], rows),
        _chained(axes[2], columns),
    )


def _pool(operation: SumPool | AvgPool, axes: Sequence[Mask]) -> tuple[Mask, Mask, Mask]:
    rows, columns = (
        _axis(axes[1 + n].shape[1], operation.kernel[n], operation.stride[n],
              operation.padding[n], 1)
        for n in (0, 1)
    )  # fmt: skip
    return (axes[0], _chained(axes[1], rows), _chained(axes[2], columns))


def _dense(operation: Dense, axes: Sequence[Mask]) -> tuple[Mask, Mask, Mask]:
    """Whatever still reaches anything reaches every neuron."""
    out = operation.weight.shape[0]
    channels = np.repeat(axes[0].any(axis=1, keepdims=True), out, axis=1)
    rows, columns = (np.asarray(mask.any(axis=1, keepdims=True)) for mask in axes[1:])
    return (channels, rows, columns)


def kind_of(synapse: Synapse) -> str:
    """How a chip keeps a synapse's list: ``dense``, ``conv``, or ``sparse`` without weights."""
    kinds = {Dense: "dense", Conv: "conv", Conv1d: "conv"}
    found = [kinds[type(op)] for op in synapse.operations if type(op) in kinds]
    return found[-1] if found else "sparse"


def reach_of(network: Network, synapse: Synapse, shape: Shape) -> Reach:
    """What a synapse into a layer of ``shape`` reaches, by its axes."""
    source = image(network.shape_of(synapse.source))
    axes: tuple[Mask, Mask, Mask] = tuple(np.eye(n, dtype=bool) for n in source)  # type: ignore[assignment]  # three of them
    kernel, flat, exact = 0, len(network.shape_of(synapse.source)) == 1, True
    for operation in synapse.operations:
        match operation:
            case Conv() | Conv1d():
                conv = operation.as_conv() if isinstance(operation, Conv1d) else operation
                exact = exact and not flat
                if exact:
                    axes = _conv(conv, axes)
                    kernel += conv.weight[0].size
            case SumPool() | AvgPool():
                exact = exact and not flat
                axes = _pool(operation, axes) if exact else axes
            case Dense():
                axes, kernel, flat = _dense(operation, axes), 0, True
            case Flatten():
                flat = True
            case Scale() | Delay():
                pass
    if not exact or tuple(mask.shape[1] for mask in axes) != image(shape):
        every = (np.ones((n, m), bool) for n, m in zip(source, image(shape), strict=True))
        axes = tuple(every)  # type: ignore[assignment]  # three of them
        return Reach(synapse.source, axes, 0, exact=False)
    return Reach(synapse.source, axes, kernel, exact=True)


Tables = tuple[Counts, Counts, Counts]


def cuts(size: Shape, tiles: Sequence[int]) -> Cuts:
    """Each axis in so many ranges, as even as they come."""

    def axis(length: int, parts: int) -> tuple[slice, ...]:
        ends = [length * n // parts for n in range(parts + 1)]
        return tuple(slice(a, b) for a, b in pairwise(ends))

    return (axis(size[0], tiles[0]), axis(size[1], tiles[1]), axis(size[2], tiles[2]))


def _overlaps(by_part: Sequence[Sequence[Mask]]) -> list[tuple[int, tuple[Mask, Mask, Mask]]]:
    """Inclusion and exclusion: every choice of parts with its sign and what all of them share."""
    terms = []
    for count in range(1, len(by_part) + 1):
        for chosen in combinations(by_part, count):
            both = [reduce(np.logical_and, axis) for axis in zip(*chosen, strict=True)]
            terms.append(((-1) ** (count + 1), (both[0], both[1], both[2])))
    return terms


def overlaps(parts: Sequence[Reach]) -> list[tuple[int, tuple[Mask, Mask, Mask]]]:
    """Signed tables of axes whose products add up to 1 where an element reaches a neuron along any
    of ``parts``, all of one source and one layer, else to 0.
    """
    return _overlaps([part.axes for part in parts])


def tables(parts: Sequence[Reach], tiles: Cuts) -> list[tuple[int, Tables]]:
    """As `overlaps` for the tiles of a cut in place of neurons: int64 (source elements, tiles)."""
    by_part = [
        [
            np.logical_or.reduceat(mask, [cut.start for cut in ranges], axis=1)
            for mask, ranges in zip(part.axes, tiles, strict=True)
        ]
        for part in parts
    ]
    found: list[tuple[int, Tables]] = []
    for sign, (channels, rows, columns) in _overlaps(by_part):
        whole = (channels.astype(np.int64), rows.astype(np.int64), columns.astype(np.int64))
        found.append((sign, whole))
    return found
