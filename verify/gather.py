"""The membranes of chosen neurons only: their receptive fields are gathered, in float64.

A linear operation is read backwards: which inputs a chosen output sees, and with which weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.dynamics import Cell
from ..network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Scale,
    Shape,
    SumPool,
    Synapse,
)
from ..network.shapes import shape_after
from .balls import Ball, Map, Terms
from .forced import Recording, Sent, arriving, membranes

Values = NDArray[Any]
Index = NDArray[np.int64]


def _weights_of(conv: Conv, shape: Shape, chosen: Index, weight: Values) -> tuple[Index, Values]:
    """Inputs and weights of chosen outputs of a convolution; what lies in the padding weighs 0."""
    # Not np.unravel_index: numpy 2.4's is wrong for more than 8192 numbers with a new last axis.
    _, height, width = shape_after(conv, shape)
    pixel, column = np.divmod(chosen[..., np.newaxis], width)
    channel, row = np.divmod(pixel, height)
    k, y, x = np.indices(weight.shape[1:]).reshape(3, -1)
    k = k + channel // (len(weight) // conv.groups) * weight.shape[1]
    y = row * conv.stride[0] - conv.padding[0] + y * conv.dilation[0]
    x = column * conv.stride[1] - conv.padding[1] + x * conv.dilation[1]
    inside = (y >= 0) & (y < shape[1]) & (x >= 0) & (x < shape[2])
    inputs = np.where(inside, (k * shape[1] + y) * shape[2] + x, 0)
    return inputs, weight.reshape(len(weight), -1)[channel[..., 0]] * inside


def _biases(bias: Values | None, channel: Index) -> Values:
    return np.zeros(channel.shape) if bias is None else bias.astype(np.float64)[channel]


def rows(operation: Operation, shape: Shape, chosen: Index) -> tuple[Index, Values, Values]:
    """What the outputs ``chosen`` (flat indices, any shape) of an operation on ``shape`` see: flat
    input indices and float64 weights (*chosen.shape, w), and biases (*chosen.shape)."""
    match operation:
        case Dense(weight=weight, bias=bias):
            inputs = np.broadcast_to(np.arange(weight.shape[1]), (*chosen.shape, weight.shape[1]))
            return inputs, weight[chosen].astype(np.float64), _biases(bias, chosen)
        case Conv(weight=weight, bias=bias):
            inputs, found = _weights_of(operation, shape, chosen, weight.astype(np.float64))
            channel = chosen // int(np.prod(shape_after(operation, shape)[1:]))
            return inputs, found, _biases(bias, channel)
        case Conv1d():
            return rows(operation.as_conv(), (shape[0], 1, shape[1]), chosen)
        case SumPool(kernel=kernel) | AvgPool(kernel=kernel):
            ones = np.ones((shape[0], 1, *kernel))
            by = kernel[0] * kernel[1] if isinstance(operation, AvgPool) else 1
            conv = Conv(
                operation.name,
                ones.astype(np.float32),
                None,
                operation.stride,
                operation.padding,
                groups=shape[0],
            )
            return *_weights_of(conv, shape, chosen, ones / by), np.zeros(chosen.shape)
        case Scale(scale=scale):
            factor = np.broadcast_to(scale.astype(np.float64), shape).reshape(-1)[chosen]
            return chosen[..., np.newaxis], factor[..., np.newaxis], np.zeros(chosen.shape)
    raise TypeError(f"{type(operation).__name__} has no weights")


def _map(weights: Values, biases: Values, extra: int) -> Map:
    def products(x: Values, by: Values) -> Values:
        found: Values = np.einsum("...w,...w->...", x, by)
        return found

    sizes, ones, some = abs(weights), (weights != 0) * 1.0, (biases != 0) * 1.0
    return Map(
        lambda x: products(x, weights) + biases,
        lambda x: products(x, sizes) + abs(biases),
        lambda x: products(x, ones) + some,
        lambda x: products(x, sizes),
        extra,
    )


def fan_in(network: Network, layer: Layer) -> int:
    """How many inputs a neuron of a layer sees at most, counted with every path to them."""
    one = np.zeros(1, np.int64)
    return max(_read_back(network, synapse, one)[0].size for synapse in layer.synapses)


def _read_back(
    network: Network, synapse: Synapse, chosen: Index
) -> tuple[Index, dict[str, tuple[Values, Values]]]:
    """The source's values that chosen neurons see, and the weights and biases on the way."""
    shapes = [network.shape_of(synapse.source)]
    for operation in synapse.operations[:-1]:
        shapes.append(shape_after(operation, shapes[-1]))
    found: dict[str, tuple[Values, Values]] = {}
    for operation, shape in reversed(list(zip(synapse.operations, shapes, strict=False))):
        if not isinstance(operation, Flatten | Delay):
            chosen, weights, biases = rows(operation, shape, chosen)
            found[operation.name] = weights, biases
    return chosen, found


@dataclass(frozen=True, eq=False)
class _Field:
    """The receptive field of chosen neurons through one synapse."""

    synapse: Synapse
    sent: Sent
    place: tuple[Index, Index]
    maps: Mapping[str, Map]


def _field(recording: Recording, synapse: Synapse, sample: Index, neuron: Index) -> _Field:
    chosen, found = _read_back(recording.network, synapse, neuron)
    maps = {name: _map(*parts, recording.maps[name].extra) for name, parts in found.items()}
    samples = sample.reshape(-1, *[1] * (chosen.ndim - 1))
    return _Field(synapse, recording.sent[synapse.source].flat(), (samples, chosen), maps)


def chosen_membranes(
    recording: Recording, layer: Layer, sample: Index, neuron: Index
) -> Iterator[tuple[Cell, Ball, Values]]:
    """Step by step for the neurons ``neuron`` (flat indices) of the samples ``sample``, (K,): their
    cell, their membrane before the decision, and what they emitted."""
    network = recording.network
    fields = [_field(recording, synapse, sample, neuron) for synapse in layer.synapses]
    emitted = recording.sent[layer.name].flat().values[:, sample, neuron]
    silent = partial(Terms.each, change=np.zeros_like)

    def current(step: int) -> Ball:
        def arrived(field: _Field) -> Terms:
            def through(operation: Operation, terms: Terms) -> Terms:
                if isinstance(operation, Flatten):
                    return terms
                return field.maps[operation.name].spread(terms, recording.rule)

            def sent(at: int) -> Terms:
                return field.sent.at(at, field.place)

            return arriving(network, layer, field.synapse, step, sent, through, silent)

        return recording.rule(reduce(add, map(arrived, fields)))

    def of_chosen(parameter: Values) -> Values:
        everywhere = np.broadcast_to(parameter.astype(np.float64), layer.shape)
        return everywhere.reshape(-1)[neuron]

    cell = Cell.of(layer.neuron, network.contract, of_chosen)
    for u, values in zip(membranes(cell, current, emitted), emitted, strict=True):
        yield cell, u, values
