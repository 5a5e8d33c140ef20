"""Linear operations backwards: which source neurons carry into a sum, and with what weight.

``wanted`` weights may stand for many sums at once, in axes before those of the shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
from .shapes import shape_after

Weights = NDArray[np.float64]


def _from_windows(conv: Conv, wanted: Weights, entering: Shape) -> Weights:
    """A convolution's transpose: every tap back to the pixels that it reads."""
    (sy, sx), (py, px), (dy, dx) = conv.stride, conv.padding, conv.dilation
    channels, height, width = entering
    weight = conv.weight.astype(np.float64)
    kernel = weight.shape[2:]
    grouped = weight.reshape(conv.groups, -1, *weight.shape[1:])
    sums, (oh, ow) = wanted.shape[:-3], wanted.shape[-2:]
    given = wanted.reshape(*sums, conv.groups, -1, oh, ow)
    part = channels // conv.groups
    padded = np.zeros((*sums, conv.groups, part, height + 2 * py, width + 2 * px))
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            taps = np.einsum("goi,...gohw->...gihw", grouped[..., ky, kx], given)
            rows = slice(ky * dy, ky * dy + sy * (oh - 1) + 1, sy)
            columns = slice(kx * dx, kx * dx + sx * (ow - 1) + 1, sx)
            padded[..., rows, columns] += taps
    whole = padded.reshape(*sums, channels, *padded.shape[-2:])
    return whole[..., py : py + height, px : px + width]


def pull(operation: Operation, wanted: Weights, entering: Shape) -> Weights:
    """The weights of what enters an operation (shape ``entering``) in a weighted sum of what it
    gives: ``wanted`` (..., *its shape) through the transpose of the operation, biases left out."""
    match operation:
        case Dense(weight=weight):
            return wanted @ weight.astype(np.float64)
        case Conv():
            return _from_windows(operation, wanted, entering)
        case Conv1d():
            flat = (entering[0], 1, entering[1])
            return pull(operation.as_conv(), wanted[..., None, :], flat)[..., 0, :]
        case Scale(scale=scale):
            return np.asarray(wanted * scale, np.float64)
        case SumPool() | AvgPool():
            return _from_windows(operation.as_conv(entering[0]), wanted, entering)
        case Flatten():
            given = shape_after(operation, entering)
            return wanted.reshape(*wanted.shape[: wanted.ndim - len(given)], *entering)
        case Delay():
            return wanted


def pull_through(operations: Sequence[Operation], wanted: Weights, source: Shape) -> Weights:
    """`pull` through operations in a row, last to first, onto the neurons of a source."""
    entering = [source]
    for operation in operations:
        entering.append(shape_after(operation, entering[-1]))
    for operation, shape in zip(reversed(operations), reversed(entering[:-1]), strict=True):
        wanted = pull(operation, wanted, shape)
    return wanted
