"""Chains of linear operations as one convolution or one matrix, where that is the same map.

Pools and scales are convolutions of one tap or a window of ones, channel by channel; two
convolutions in a row are one with the kernel spread out, and whatever stands before a matrix can
be taken into its columns. Weights are worked out in float64 and rounded once: on a grid of powers
of two, where their products have 24 bits at most, the joined map gives the same currents bit for
bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Dense,
    Flatten,
    Operation,
    Pair,
    Scale,
    Shape,
    SumPool,
)
from ..network.linear import apply
from ..network.pullback import pull_through
from ..network.shapes import shape_after

Wide = NDArray[np.float64]


class NotOneMapError(Exception):
    """Why operations are not one linear map, in words that follow the layer's name."""


def one_map(operations: Sequence[Operation], shape: Shape, name: str) -> tuple[Operation, ...]:
    """Linear operations on (*shape), none of them a delay, as one convolution or matrix.

    What comes out is a `Conv`, with a `Flatten` behind it where there was one, or a `Dense`, with
    a `Flatten` before it where its input is no vector. What is one already stays as it is; no
    operation at all is the identity, of weight 1. ``name``: of a map that had none.
    Raises NotOneMapError.
    """
    kinds = [type(op) for op in operations]
    if kinds in ([Conv], [Conv, Flatten], [Dense], [Flatten, Dense]):
        return tuple(operations)
    weighted = [op.name for op in operations if isinstance(op, Conv | Conv1d | Dense)]
    others = [op.name for op in operations if not isinstance(op, Flatten)]
    name = (weighted or others or [name])[-1]
    flatten = next((op for op in operations if isinstance(op, Flatten)), None)
    if Dense in kinds or len(shape) == 1:
        dense = Dense(name, *_matrix(operations, shape))
        if len(shape) == 1:
            return (dense,)
        return (flatten or Flatten(f"{name}.flatten"), dense)
    here: Shape = shape
    if len(here) != 3:
        raise NotOneMapError(
            f"'{name}' acts on shape {list(shape)}, which no convolution here takes"
        )
    conv = _pointwise(name, np.ones(shape[0]))
    for op in operations:
        if isinstance(op, Flatten):
            here = shape_after(op, here)
            continue
        if len(here) != 3:
            raise NotOneMapError(f"'{op.name}' stands behind '{flatten.name if flatten else name}'")
        conv = _join(conv, _as_conv(op, here), shape)
        here = shape_after(op, here)
    conv = replace(conv, name=name)
    if len(here) == 3:
        return (conv,)
    if len(here) != 1 or flatten is None:
        raise NotOneMapError(f"'{name}' ends in shape {list(here)}, neither an image nor a vector")
    return (conv, flatten)


def _float32(values: Wide) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _pointwise(name: str, factors: Wide) -> Conv:
    """A convolution of one tap that multiplies channel by channel, ``factors`` (C,)."""
    return Conv(name, _float32(factors.reshape(-1, 1, 1, 1)), groups=len(factors))


def _as_conv(operation: Operation, shape: Shape) -> Conv:
    """An operation on images (C, H, W) as a convolution; raises NotOneMapError."""
    match operation:
        case Conv():
            return operation
        case SumPool() | AvgPool():
            return operation.as_conv(shape[0])
        case Scale(scale=scale):
            whole = np.broadcast_to(scale.astype(np.float64), shape)
            if (whole != whole[:, :1, :1]).any():
                raise NotOneMapError(
                    f"'{operation.name}' scales neurons of one channel differently"
                )
            return _pointwise(operation.name, whole[:, 0, 0])
        case _:
            raise NotOneMapError(
                f"'{operation.name}' ({type(operation).__name__}) is no convolution"
            )


def _whole(conv: Conv) -> Wide:
    """A convolution's weights over all channels, (Cout, Cin, KH, KW): zeros between groups."""
    out, per_group = conv.weight.shape[:2]
    full = np.zeros((out, per_group * conv.groups, *conv.weight.shape[2:]))
    rows = out // conv.groups
    for group in range(conv.groups):
        block = slice(group * rows, (group + 1) * rows)
        channels = slice(group * per_group, (group + 1) * per_group)
        full[block, channels] = conv.weight[block]
    return full


def _grouped(full: Wide, groups: int) -> Wide:
    """The inverse of `_whole`."""
    rows, per_group = full.shape[0] // groups, full.shape[1] // groups
    parts = [
        full[n * rows : (n + 1) * rows, n * per_group : (n + 1) * per_group] for n in range(groups)
    ]
    return np.concatenate(parts)


def _outside(a: Conv, b: Conv, shape: Shape, axis: int) -> tuple[bool, bool]:
    """Whether ``b`` reads zeros around what ``a`` gives, and whether ``a`` would put something
    other than zero there."""
    between, after = shape_after(a, shape), shape_after(b, shape_after(a, shape))
    reads = {
        y * b.stride[axis] + j * b.dilation[axis] - b.padding[axis]
        for y in range(after[1 + axis])
        for j in range(b.weight.shape[2 + axis])
    }
    beyond = [z for z in reads if not 0 <= z < between[1 + axis]]
    taps = range(a.weight.shape[2 + axis])
    touched = (
        0 <= z * a.stride[axis] + i * a.dilation[axis] - a.padding[axis] < shape[1 + axis]
        for z in beyond
        for i in taps
    )
    return bool(beyond), any(touched)


def _join(a: Conv, b: Conv, shape: Shape) -> Conv:
    """Convolution ``a`` on (*shape), then ``b``, as one: position j of the second kernel reads
    the first at j times its stride. Raises NotOneMapError where ``b`` pads."""
    for axis in (0, 1):
        padded, touched = _outside(a, b, shape, axis)
        if touched or (padded and a.bias is not None and a.bias.any()):
            raise NotOneMapError(
                f"'{b.name}' pads what '{a.name}' gives, and the two joined would put other values "
                "than zero into that border"
            )
    if b.groups == a.groups or a.groups % b.groups == 0:
        groups = b.groups
    else:
        groups = a.groups if b.groups % a.groups == 0 else 1
    first, second = _whole(a), _whole(b)
    steps: tuple[list[int], list[int]] = ([], [])
    for axis in (0, 1):
        stride = b.dilation[axis] * a.stride[axis]
        steps[axis].extend(
            j * stride + i * a.dilation[axis]
            for j in range(second.shape[2 + axis])
            for i in range(first.shape[2 + axis])
        )
    dilation = (math.gcd(*steps[0]) or 1, math.gcd(*steps[1]) or 1)
    size = (max(steps[0]) // dilation[0] + 1, max(steps[1]) // dilation[1] + 1)
    weight = np.zeros((second.shape[0], first.shape[1], *size))
    for jy, jx, iy, ix in np.ndindex(*second.shape[2:], *first.shape[2:]):
        y = jy * b.dilation[0] * a.stride[0] + iy * a.dilation[0]
        x = jx * b.dilation[1] * a.stride[1] + ix * a.dilation[1]
        weight[:, :, y // dilation[0], x // dilation[1]] += (
            second[:, :, jy, jx] @ first[:, :, iy, ix]
        )
    return Conv(
        b.name,
        _float32(_grouped(weight, groups)),
        _joined_bias(a, b, second),
        (a.stride[0] * b.stride[0], a.stride[1] * b.stride[1]),
        _pads(a, b),
        dilation,
        groups,
    )


def _pads(a: Conv, b: Conv) -> Pair:
    return (
        a.padding[0] + b.padding[0] * a.stride[0],
        a.padding[1] + b.padding[1] * a.stride[1],
    )


def _joined_bias(a: Conv, b: Conv, second: Wide) -> NDArray[np.float32] | None:
    if a.bias is None:
        return b.bias
    carried = second.sum(axis=(2, 3)) @ a.bias.astype(np.float64)
    return _float32(carried if b.bias is None else carried + b.bias)


def _matrix(
    operations: Sequence[Operation], shape: Shape
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """(weight (out, in), bias (out,) or None) of operations on (*shape) that end in a vector."""
    bias: Wide = np.zeros((1, *shape))
    for op in operations:
        bias = apply(op, bias)
    (after,) = bias
    if after.ndim != 1:
        last = operations[-1].name
        raise NotOneMapError(f"'{last}' ends in shape {list(after.shape)}, no vector")
    rows = pull_through(operations, np.eye(len(after)), shape)
    return _float32(rows.reshape(len(after), -1)), _float32(after) if after.any() else None
