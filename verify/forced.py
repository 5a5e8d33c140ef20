"""A recorded run, read as what each layer received and emitted: teacher forcing.

A layer is given what its sources really sent, and its state follows what it really emitted, so
nothing cascades and a fault shows in its own layer only. Recorded are the spikes of every spiking
layer and the values of the output; the values of other layers (sums, leaky integrators) follow
from those, with a bound of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..network.dynamics import Cell, State
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
    SumPool,
    Synapse,
    Weighted,
)
from ..network.linear import apply
from ..network.neurons import Spiking
from ..network.trace import Packed, unpack
from .balls import Ball, Kind, Map, Rule, Terms, powers_of_two

Values = NDArray[Any]
X = TypeVar("X")


@dataclass(frozen=True, eq=False)
class Sent:
    """What a source sent at every step, (T, B, *shape), with errors or None where it is exact."""

    values: Values
    errors: Values | None
    kind: Kind

    def at(self, step: int, place: Any = ...) -> Terms:
        """One step's values in float64, all or some of them; zeros before the first step."""
        value = self.values[max(step, 0)][place].astype(np.float64)
        error = 0.0 if self.errors is None else self.errors[max(step, 0)][place]
        terms = Terms.sent(Ball(value, error), self.kind)
        return terms if step >= 0 else terms.each(np.zeros_like)

    def largest(self) -> Terms:
        """Per value the largest magnitude and error of all steps and samples, (1, *shape)."""
        size = abs(self.values).max((0, 1)).astype(np.float64)[np.newaxis]
        error = 0.0 if self.errors is None else self.errors.max((0, 1))[np.newaxis]
        return Terms.sent(Ball(size, error), self.kind)

    def flat(self) -> Sent:
        """The same values with one axis for all neurons, (T, B, N)."""
        front = self.values.shape[:2]
        values = self.values.reshape(*front, -1)
        return Sent(
            values, None if self.errors is None else self.errors.reshape(*front, -1), self.kind
        )


def arriving(
    network: Network,
    layer: Layer,
    synapse: Synapse,
    step: int,
    sent: Callable[[int], X],
    through: Callable[[Operation, X], X],
    silent: Callable[[X], X],
) -> X:
    """What a synapse delivers at a step, whatever numbers are made of.

    ``sent`` gives the source's values of a step (zeros before the first), ``through`` takes them
    through one operation, ``silent`` makes zeros of them: what a delay holds at the beginning.
    """
    at = step - synapse.delay
    x = sent(at - network.late(layer, synapse))
    for operation in synapse.operations:
        if isinstance(operation, Delay):
            x = silent(x) if at < 0 else x
            at += operation.steps
        else:
            x = through(operation, x)
    return x


def extra_roundings(operation: Operation) -> int:
    """Roundings of a term besides additions: its product's, or those of a division by a window
    (as a product with a rounded reciprocal it rounds twice)."""
    if isinstance(operation, AvgPool):
        return 0 if powers_of_two(float(operation.kernel[0] * operation.kernel[1])) else 2
    if isinstance(operation, Weighted):
        weight = operation.scale if isinstance(operation, Scale) else operation.weight
        return 0 if powers_of_two(weight).all() else 1
    return 0


def _counting(operation: Operation) -> Operation:
    """1 for every weight and bias that is not 0."""
    match operation:
        case Dense() | Conv() | Conv1d():
            bias = None if operation.bias is None else (operation.bias != 0).astype(np.float32)
            weight = (operation.weight != 0).astype(np.float32)
            return replace(operation, weight=weight, bias=bias)
        case Scale(name=name, scale=scale):
            return Scale(name, (scale != 0).astype(np.float32))
        case AvgPool(name=name, kernel=kernel, stride=stride, padding=padding):
            return SumPool(name, kernel, stride, padding)
    return operation


def maps_of(network: Network) -> dict[str, Map]:
    """All operations of a network by name, on a whole batch (B, *shape)."""
    operations = [operation for _, _, operation in network.operations()]
    return {op.name: _map(op) for op in operations if not isinstance(op, Flatten | Delay)}


def _map(operation: Operation) -> Map:
    bare = operation
    if isinstance(operation, Dense | Conv | Conv1d):
        bare = replace(operation, bias=None)
    return Map(
        partial(apply, operation),
        partial(apply, operation, magnitude=True),
        partial(apply, _counting(operation)),
        partial(apply, bare, magnitude=True),
        extra_roundings(operation),
    )


@dataclass(frozen=True, eq=False)
class Recording:
    """A network's recorded run: what every source sent, and what the output's values were."""

    network: Network
    sent: Mapping[str, Sent]
    outputs: Values
    rule: Rule
    maps: Mapping[str, Map]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.outputs)

    def recorded(self, layer: Layer) -> bool:
        """Whether it is recorded what a layer emitted."""
        return isinstance(layer.neuron, Spiking) or layer.name == self.network.output

    def through(self, operation: Operation, terms: Terms) -> Terms:
        """Terms of a whole batch through an operation."""
        if isinstance(operation, Flatten):
            return terms.each(partial(apply, operation))
        return self.maps[operation.name].spread(terms, self.rule)

    def current(self, layer: Layer, step: int) -> Ball:
        """What all synapses bring to a layer at a step, (B, *shape), in float64."""
        silent = partial(Terms.each, change=np.zeros_like)
        terms = [
            arriving(self.network, layer, s, step, self.sent[s.source].at, self.through, silent)
            for s in layer.synapses
        ]
        return self.rule(reduce(add, terms))


def follow(cell: Cell, state: State, emitted: Values) -> State:
    """The state after a step, given what the neuron really emitted: a spike, or its membrane.

    A reset to a value leaves nothing of the error behind: u - u is 0 whatever u was.
    """
    if cell.threshold is None:
        return State(Ball(emitted, 0.0), state.i)
    if cell.v_reset is None:
        return state
    owed = cell.threshold * emitted
    if cell.contract.late_reset:
        return State(state.v, state.i, owed)
    if cell.contract.reset == "subtract":
        return State(state.v - owed, state.i)
    spike, u = emitted.astype(bool), state.v
    return State(Ball(np.where(spike, cell.v_reset, u.value), np.where(spike, 0, u.error)), state.i)


def membranes(cell: Cell, current: Callable[[int], Ball], emitted: Values) -> Iterator[Ball]:
    """The membrane before the decision of every step; a layer without one has its current."""
    state = State()
    for step, values in enumerate(emitted):
        state = cell.membrane(state, current(step))
        yield state.v
        state = follow(cell, state, values)


def exact_cell(layer: Layer, network: Network) -> Cell:
    """A layer's neuron in float64."""
    return Cell.of(layer.neuron, network.contract, lambda values: values.astype(np.float64))


def forced(
    network: Network,
    frames: Values,
    spikes: Mapping[str, Packed],
    outputs: Values,
    rule: Rule,
    maps: Mapping[str, Map],
) -> Recording:
    """A run on ``frames`` (T, B, *input_shape) as a recording; ``spikes`` of every spiking layer,
    ``outputs`` (T, B, K), ``maps`` those of the network.
    """
    sent = {network.input: Sent(frames, None, "sent")}
    unknown: dict[str, Cell] = {}
    for layer in network.layers:
        shape = (*outputs.shape[:2], *layer.shape)
        if isinstance(layer.neuron, Spiking):
            values = unpack(spikes[layer.name], layer.shape)
            sent[layer.name] = Sent(values, None, "spikes")
        elif layer.name == network.output:
            finite = np.where(np.isfinite(outputs), outputs, 0)  # what is not is wrong by itself
            sent[layer.name] = Sent(finite.reshape(shape), None, "sent")
        else:
            sent[layer.name] = Sent(np.zeros(shape), np.zeros(shape), "sent")
            unknown[layer.name] = exact_cell(layer, network)
    recording = Recording(network, sent, outputs, rule, maps)
    states = {name: State() for name in unknown}
    for step in range(recording.steps if unknown else 0):
        for name, cell in unknown.items():
            current = recording.current(network.layer(name), step)
            states[name] = cell.membrane(states[name], current)
            errors = sent[name].errors
            sent[name].values[step] = states[name].v.value
            if errors is not None:
                errors[step] = states[name].v.error
    return recording
