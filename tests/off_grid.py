"""Networks whose sums are rounded, and a float32 run that adds up in an order of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from snnpipe.network import simulate as reference
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Dense,
    Network,
    Operation,
    Scale,
    SumPool,
)
from snnpipe.network.linear import apply
from snnpipe.network.shapes import shape_after

Values = np.ndarray


def off_grid(network: Network, seed: int) -> Network:
    """Every weight, bias and scale changed by some per cent, each by its own factor."""
    rng = np.random.default_rng(seed)

    def moved(values: Values | None) -> Any:
        if values is None:
            return None
        return (values * (1 + rng.normal(0, 0.1, values.shape))).astype(np.float32)

    def change(op: Operation) -> Operation:
        if isinstance(op, Dense | Conv | Conv1d):
            return replace(op, weight=moved(op.weight), bias=moved(op.bias))
        return replace(op, scale=moved(op.scale)) if isinstance(op, Scale) else op

    layers = []
    for layer in network.layers:
        synapses = [replace(s, operations=tuple(map(change, s.operations))) for s in layer.synapses]
        layers.append(replace(layer, synapses=tuple(synapses)))
    return replace(network, layers=tuple(layers))


def _added(terms: Values, rng: np.random.Generator) -> Values:
    """The sum over the last axis in float32, in a random order and a random tree."""
    terms = terms[..., rng.permutation(terms.shape[-1])]
    if rng.integers(2):  # one after the other
        total = np.zeros(terms.shape[:-1], np.float32)
        for n in range(terms.shape[-1]):
            total = total + terms[..., n]
        return total
    parts = [terms[..., n] for n in range(terms.shape[-1])]
    while len(parts) > 1:
        n = rng.integers(len(parts) - 1)
        parts[n : n + 2] = [parts[n] + parts[n + 1]]
    return parts[0]


def _fused(x: Values, matrix: Values, bias: Values, rng: np.random.Generator) -> Values:
    """One after the other by fused multiply-adds: each rounds once."""
    total = np.broadcast_to(bias, (len(x), len(matrix))).astype(np.float32)
    for n in rng.permutation(matrix.shape[1]):
        total = (total + x[:, n, None].astype(np.float64) * matrix[:, n]).astype(np.float32)
    return total


def scrambled(operation: Operation, x: Values, rng: np.random.Generator) -> Values:
    """An operation on (B, *shape) as some float32 library might compute it."""
    if not isinstance(operation, Dense | Conv | Conv1d | SumPool | AvgPool):
        return apply(operation, x)
    weighted = isinstance(operation, Dense | Conv | Conv1d)
    linear = replace(operation, bias=None) if weighted else operation
    if isinstance(operation, AvgPool):
        linear = SumPool(operation.name, operation.kernel, operation.stride, operation.padding)
    size, shape = int(np.prod(x.shape[1:])), shape_after(operation, x.shape[1:])
    units = np.eye(size, dtype=np.float32).reshape(size, *x.shape[1:])
    matrix = apply(linear, units).reshape(size, -1).T
    bias = np.zeros(len(matrix), np.float32)
    if weighted and operation.bias is not None:
        bias = np.repeat(operation.bias, len(matrix) // len(operation.bias))
    flat = x.reshape(len(x), size)
    if rng.integers(3) == 0:
        total = _fused(flat, matrix, bias, rng)
    else:
        biases = np.broadcast_to(bias, (len(x), len(bias)))[..., None]
        total = _added(np.concatenate([flat[:, None] * matrix, biases], axis=-1), rng)
    if isinstance(operation, AvgPool):
        by = np.float32(operation.kernel[0] * operation.kernel[1])
        total = total / by if rng.integers(2) else total * (np.float32(1) / by)
    return total.reshape(len(x), *shape)


def run_scrambled(network: Network, x: Values, steps: int, seed: int, watch: Any = None) -> Any:
    """The reference executor with `scrambled` operations."""
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "apply", lambda op, x: scrambled(op, x, rng))
        return reference.simulate(network, x, steps, watch=watch)
