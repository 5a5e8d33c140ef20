"""Shape inference, our own (NIR's has traps with kernels that are not square, groups and pads)."""

from __future__ import annotations

import numpy as np

from ..errors import RequestError
from .layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Operation,
    Scale,
    Shape,
    SumPool,
)


def _wrong(operation: Operation, shape: Shape, expected: str) -> RequestError:
    return RequestError(
        "E_SHAPE",
        f"'{operation.name}' ({type(operation).__name__}) receives shape {list(shape)}; "
        f"expected {expected}",
    )


def window_count(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Number of windows along one axis, may be less than 1 when the kernel does not fit."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def shape_after(operation: Operation, shape: Shape) -> Shape:
    """Shape behind an operation; RequestError (E_SHAPE) when it cannot take ``shape``."""
    match operation:
        case Dense(weight=weight):
            if not shape or shape[-1] != weight.shape[1] or len(shape) != 1:
                raise _wrong(operation, shape, f"[{weight.shape[1]}]")
            return (int(weight.shape[0]),)
        case Conv(weight=weight):
            channels = weight.shape[1] * operation.groups
            if len(shape) != 3 or shape[0] != channels:
                raise _wrong(operation, shape, f"[{channels}, H, W]")
            if weight.shape[0] % operation.groups:
                raise _wrong(operation, shape, f"a multiple of {operation.groups} channels out")
            size = tuple(
                window_count(n, k, s, p, d)
                for n, k, s, p, d in zip(
                    shape[1:],
                    weight.shape[2:],
                    operation.stride,
                    operation.padding,
                    operation.dilation,
                    strict=True,
                )
            )
            if min(size) < 1:
                raise _wrong(operation, shape, "an image that the kernel fits into")
            return (int(weight.shape[0]), *size)
        case Conv1d(weight=weight):
            if len(shape) != 2:
                raise _wrong(operation, shape, f"[{weight.shape[1] * operation.groups}, L]")
            channels, _, length = shape_after(operation.as_conv(), (shape[0], 1, shape[1]))
            return (channels, length)
        case Scale(scale=scale):
            try:
                fits = np.broadcast_shapes(scale.shape, shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise _wrong(operation, shape, f"one that scale {list(scale.shape)} broadcasts to")
            return shape
        case Delay():
            return shape
        case SumPool() | AvgPool():
            if len(shape) != 3:
                raise _wrong(operation, shape, "[C, H, W]")
            size = tuple(
                window_count(n, k, s, p)
                for n, k, s, p in zip(
                    shape[1:], operation.kernel, operation.stride, operation.padding, strict=True
                )
            )
            if min(size) < 1:
                raise _wrong(operation, shape, "an image that the window fits into")
            return (shape[0], *size)
        case Flatten():
            ends = (operation.start, operation.end)
            start, end = (axis if axis >= 0 else len(shape) + axis for axis in ends)
            if not 0 <= start <= end < len(shape):
                raise _wrong(operation, shape, f"axes {operation.start} to {operation.end}")
            joined = int(np.prod(shape[start : end + 1]))
            return (*shape[:start], joined, *shape[end + 1 :])
