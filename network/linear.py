"""The linear operations in numpy, for any float dtype: one matrix product each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layers import AvgPool, Conv, Conv1d, Delay, Dense, Flatten, Operation, Pair, Scale, Synapse
from .shapes import shape_after

Values = NDArray[Any]


def _windows(x: Values, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Values:
    """(B, C, H, W) to a view (B, C, OH, OW, KH, KW)."""
    (py, px), (dy, dx) = padding, dilation
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    span = ((kernel[0] - 1) * dy + 1, (kernel[1] - 1) * dx + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], ::dy, ::dx]


def _conv(op: Conv, x: Values, weight: Values) -> Values:
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    view = _windows(x, kernel, op.stride, op.padding, op.dilation)
    b, _, oh, ow = view.shape[:4]
    grouped = view.reshape(b, op.groups, -1, oh, ow, *kernel)
    columns = grouped.transpose(1, 0, 3, 4, 2, 5, 6).reshape(op.groups, b * oh * ow, -1)
    rows = weight.reshape(op.groups, weight.shape[0] // op.groups, -1)
    out = columns @ rows.transpose(0, 2, 1)
    return out.reshape(op.groups, b, oh, ow, -1).transpose(1, 0, 4, 2, 3).reshape(b, -1, oh, ow)


def apply(operation: Operation, x: Values, magnitude: bool = False) -> Values:
    """One operation on a batch (B, *shape), in the dtype of ``x``; a Delay only passes on.

    ``magnitude`` takes the absolute values of weights and biases: for non-negative ``x`` the
    result is then the sum of the terms' magnitudes.
    """
    if isinstance(operation, Conv1d):
        return apply(operation.as_conv(), x[:, :, np.newaxis], magnitude)[:, :, 0]
    if isinstance(operation, Delay):
        return x
    if isinstance(operation, Scale):
        factor = operation.scale.astype(x.dtype, copy=False)
        scaled: Values = x * (abs(factor) if magnitude else factor)
        return scaled
    if isinstance(operation, (Dense, Conv)):
        weight = operation.weight.astype(x.dtype, copy=False)
        weight = abs(weight) if magnitude else weight
        out: Values = x @ weight.T if isinstance(operation, Dense) else _conv(operation, x, weight)
        if operation.bias is not None:
            bias = operation.bias.astype(x.dtype, copy=False)
            bias = bias if isinstance(operation, Dense) else bias[:, None, None]
            out = out + (abs(bias) if magnitude else bias)
        return out
    if isinstance(operation, Flatten):
        return x.reshape(x.shape[0], *shape_after(operation, x.shape[1:]))
    view = _windows(x, operation.kernel, operation.stride, operation.padding, (1, 1))
    total: Values = view.sum(axis=(4, 5), dtype=x.dtype)
    if isinstance(operation, AvgPool):
        total = total / x.dtype.type(operation.kernel[0] * operation.kernel[1])
    return total


def through(synapse: Synapse, x: Values, magnitude: bool = False) -> Values:
    """A batch through a synapse's operations, in the dtype of ``x``; delays pass on."""
    for operation in synapse.operations:
        x = apply(operation, x, magnitude)
    return x
