"""The reference executor: numpy, step by step, layer by layer, any arithmetic.

Slow and obviously right; every other runtime is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .contract import Integer
from .dynamics import WEIGHT_SHIFT, Cell, IntegerCell, State
from .integer_sums import carry, host_bias, neuron_bias, products, stored
from .layers import Conv, Delay, Layer, Network, Operation, Synapse
from .linear import apply
from .loihi import wrap24
from .neurons import Spiking, Sum
from .overflow import can_overflow, whole_run
from .trace import Record, Trace, pack

Values = NDArray[Any]
Watch = Callable[[str, int, Values, Values], None]
"""Called with (layer, step, membrane before the decision, current), each (B, *shape): the current
that enters the membrane, in integers u, without the bias."""
Carry = Callable[[Operation, Values], Values]


class _Step(NamedTuple):
    """What a layer did in one step, each (B, *shape): its whole current, its membrane before the
    decision, what it emits, and what of the current entered the membrane (`Watch`)."""

    current: Values
    membrane: Values
    value: Values
    entering: Values


def frames_of(network: Network, x: Values, steps: int) -> tuple[Values, bool]:
    """Inputs as (T, B, *input_shape) and whether all steps are the same frame.

    ``x`` is (B, *input_shape), shown at every step, or (T, B, *input_shape). Raises RequestError
    (E_INPUT) for another shape, no step or no sample.
    """
    rank = len(network.input_shape)
    if x.shape[x.ndim - rank :] != network.input_shape or x.ndim not in (rank + 1, rank + 2):
        raise RequestError(
            "E_INPUT",
            f"the input has shape {list(x.shape)}; expected [B, "
            f"{', '.join(map(str, network.input_shape))}] or the same with T = {steps} in front",
        )
    samples = x.shape[-rank - 1]
    if steps < 1 or samples < 1:
        raise RequestError(
            "E_INPUT",
            f"a run has 1 step or more and 1 sample or more, asked for {steps} and {samples}",
        )
    if x.ndim == rank + 1:
        return np.broadcast_to(x, (steps, *x.shape)), True
    if x.shape[0] != steps:
        raise RequestError("E_INPUT", f"the input holds {x.shape[0]} steps, asked for {steps}")
    return x, False


class _Past:
    """Values of earlier steps, for the delays of a run."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Values]] = {}

    def passed(self, operation: Delay, x: Values) -> Values:
        """What entered a delay ``steps`` steps ago; zeros when nothing had."""
        line = self._lines.setdefault(operation.name, [])
        line.append(x)
        return line.pop(0) if len(line) > operation.steps else np.zeros_like(x)

    def through(self, synapse: Synapse, x: Values, carry: Carry) -> Values:
        """One step of a synapse; ``carry`` takes values through an operation without a memory."""
        for operation in synapse.operations:
            match operation:
                case Delay():
                    x = self.passed(operation, x)
                case _:
                    x = carry(operation, x)
        return x


class _Integers:
    """The layers of a network in Loihi's integers, a step at a time.

    ``overflows``: so far, for the layers that are not proven to stay in range.
    """

    def __init__(self, network: Network, arithmetic: Integer, steps: int) -> None:
        self._arithmetic = arithmetic
        self._biases = {
            layer.name: neuron_bias(network, layer)
            for layer in network.layers
            if layer.name not in arithmetic.host_scale
        }
        self._cells = {
            layer.name: IntegerCell.of(
                layer.neuron, network.contract, lambda whole: np.rint(whole).astype(np.int64)
            )
            for layer in network.layers
            if not isinstance(layer.neuron, Sum)
        }
        self._states = {name: State(0, 0) for name in self._cells}
        self.overflows = dict.fromkeys(can_overflow(network, steps), 0)

    def step(self, layer: Layer, inputs: list[tuple[Synapse, Values]], past: _Past) -> _Step:
        """One step of a layer from what enters its synapses."""
        samples = inputs[0][1].shape[0]
        total = np.zeros((samples, *layer.shape), np.int64)
        if layer.name in self._arithmetic.host_scale:
            current = np.zeros(total.shape, np.float32)
            for synapse, x in inputs:
                current = current + past.through(synapse, x, apply)
            bias = host_bias(self._arithmetic, layer, current)
        else:
            for synapse, x in inputs:
                carried = past.through(synapse, x.astype(np.int64), partial(self._carry, layer))
                total = total + carried
            bias = self._biases[layer.name]
        if isinstance(layer.neuron, Sum):
            whole = (total << WEIGHT_SHIFT) + bias
            return _Step(whole, whole, whole, whole)
        cell, state = self._cells[layer.name], self._states[layer.name]
        if layer.name in self.overflows:
            self.overflows[layer.name] += int(np.sum(cell.lost(state, total, bias)))
        state = cell.membrane(state, total, bias)
        spike = cell.decide(state.v)
        self._states[layer.name] = cell.settle(state, spike)
        return _Step(state.i + bias, state.v, spike, state.i)

    def _carry(self, layer: Layer, operation: Operation, x: Values) -> Values:
        if isinstance(operation, Conv) and layer.name in self.overflows:
            total = products(operation, x)
            self.overflows[layer.name] += int(np.count_nonzero(wrap24(total) != total))
            return stored(self._arithmetic, operation, total)
        return carry(self._arithmetic, operation, x)


class _Floats:
    """The layers of a network in floats, a step at a time."""

    def __init__(self, network: Network, dtype: type[np.floating[Any]]) -> None:
        self._dtype = dtype
        self._cells = {
            layer.name: Cell.of(layer.neuron, network.contract, lambda values: values.astype(dtype))
            for layer in network.layers
            if not isinstance(layer.neuron, Sum)
        }
        self._states = {name: State() for name in self._cells}

    def step(self, layer: Layer, inputs: list[tuple[Synapse, Values]], past: _Past) -> _Step:
        """One step of a layer from what enters its synapses."""
        current: Values = np.zeros((inputs[0][1].shape[0], *layer.shape), self._dtype)
        for synapse, x in inputs:
            current = current + past.through(synapse, x.astype(self._dtype), apply)
        if isinstance(layer.neuron, Sum):
            return _Step(current, current, current, current)
        cell = self._cells[layer.name]
        state = cell.membrane(self._states[layer.name], current)
        u = np.asarray(state.v)
        value = cell.decide(u) if isinstance(layer.neuron, Spiking) else u
        self._states[layer.name] = cell.settle(state, value)
        return _Step(current, u, value, current if cell.synaptic_decay is None else state.i)


def simulate(
    network: Network,
    x: Values,
    steps: int,
    record: Record | None = None,
    dtype: type[np.floating[Any]] = np.float32,
    watch: Watch | None = None,
) -> Trace:
    """Run a network on frames ``x``, (B, *input_shape) or (T, B, *input_shape), float.

    Integer networks are run in integers whatever ``dtype`` says, and what overflows is counted.
    Raises RequestError (E_INPUT; E_RANGE for integers that 32 bits do not hold; E_GRID for integer
    sums that feed each other).
    """
    record = record or Record()
    frames, _ = frames_of(network, x, steps)
    arithmetic = network.contract.arithmetic
    integer = isinstance(arithmetic, Integer)
    run = (
        _Integers(network, arithmetic, steps)
        if isinstance(arithmetic, Integer)
        else _Floats(network, dtype)
    )
    batch = frames.shape[1]
    past = _Past()
    history: dict[str, list[Values]] = {layer.name: [] for layer in network.layers}
    currents: dict[str, list[Values]] = {layer.name: [] for layer in network.layers}
    active: dict[str, list[int]] = {}
    outputs: list[Values] = []
    before: dict[str, Values] = {
        layer.name: np.zeros((batch, *layer.shape), dtype) for layer in network.layers
    }
    for t in range(steps):
        values = {**before, network.input: frames[t]}  # a layer's value is of this step once it ran
        for layer in network.layers:
            inputs = [(synapse, values[synapse.source]) for synapse in layer.synapses]
            current, membrane, value, entering = run.step(layer, inputs, past)
            if isinstance(layer.neuron, Spiking):
                count = int(np.count_nonzero((current != 0) | value))
                active.setdefault(layer.name, []).append(count)
            if watch is not None and not isinstance(layer.neuron, Sum):
                watch(layer.name, t, membrane, entering)
            values[layer.name] = before[layer.name] = value
            history[layer.name].append(value)
            if record.currents:
                flat = current[: record.currents].reshape(-1, layer.size)
                currents[layer.name].append(_int32(layer.name, flat) if integer else flat)
        outputs.append(values[network.output].reshape(batch, -1))
    trace = _trace(network, frames, history, currents, active, outputs, record)
    if not isinstance(run, _Integers):
        return trace
    return replace(trace, overflows=whole_run(network, run.overflows, trace.outputs))


def _int32(name: str, values: Values) -> Values:
    """A layer's whole numbers as a trace keeps them."""
    if values.size and (values.min() < -(2**31) or values.max() >= 2**31):
        raise RequestError(
            "E_RANGE",
            f"layer '{name}' came to {values.flat[np.argmax(abs(values))]}, which 32 bits do not "
            "hold; use smaller weights or exponents",
        )
    return values.astype(np.int32)


def _trace(
    network: Network,
    frames: Values,
    history: dict[str, list[Values]],
    currents: dict[str, list[Values]],
    active: dict[str, list[int]],
    outputs: list[Values],
    record: Record,
) -> Trace:
    integer = isinstance(network.contract.arithmetic, Integer)
    fired = {network.input: np.count_nonzero(frames, axis=1).astype(np.int64)}
    spikes = {}
    for name, values in history.items():
        stacked = np.stack(values)
        fired[name] = np.count_nonzero(stacked, axis=1).astype(np.int64)
        if stacked.dtype == bool:
            spikes[name] = pack(stacked[:, : record.spikes])
    out = np.stack(outputs)
    kind = np.float32 if out.dtype == bool else out.dtype
    return Trace(
        _int32(network.output, out) if integer else out.astype(kind),
        fired,
        spikes,
        {name: np.stack(values) for name, values in currents.items() if values},
        {name: np.array(counts, np.int64) for name, counts in active.items()},
    )
