"""The reference executor: numpy, step by step, layer by layer, any arithmetic.

Slow and obviously right; every other runtime is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from . import dynamics
from .contract import Integer
from .dynamics import WEIGHT_SHIFT, Cell, State
from .layers import Delay, Layer, Network, Synapse
from .linear import apply
from .loihi import MANTISSA_MAX, MANTISSA_MIN, decay_units, host_factor
from .neurons import IF, LIF, Neuron, Spiking, Sum, decay_of
from .trace import Record, Trace, pack

Values = NDArray[Any]
Watch = Callable[[str, int, Values], None]
"""Called with (layer, step, membrane before the decision (B, *shape))."""


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


def _step_integer(
    neuron: Neuron, current: Values, v: Values | None
) -> tuple[Values, Values, Values]:
    """(membrane before the decision, spikes, membrane after)."""
    if not isinstance(neuron, LIF | IF):  # `check` lets no other into integers
        raise TypeError(f"{type(neuron).__name__} has no integer step")
    before = np.zeros_like(current) if v is None else v
    u = dynamics.loihi_integrate(before, current, 0, decay_units(decay_of(neuron)))
    spike = dynamics.loihi_decide(u, neuron.threshold.astype(np.int64))
    return u, spike, dynamics.loihi_reset(u, spike)


def integer_current(arithmetic: Integer, layer: Layer, total: Values) -> NDArray[np.int64]:
    """A layer's summed current (B, *shape) to integer membrane units, int64.

    ``total`` holds weight units (sum of integer weights plus bias/64), float64; for a layer whose
    current the host computes, the float32 current itself. A synaptic sum above 24 bits is excluded
    by `check`, so the wrap of `dynamics.loihi_current` has nothing to do here.
    """
    scale = arithmetic.host_scale.get(layer.name)
    if scale is None:
        return np.asarray(np.rint(total * 2**WEIGHT_SHIFT), np.int64)
    exponent = arithmetic.bias_exponents[layer.name]
    mantissa = np.rint(total.astype(np.float64) * host_factor(scale, exponent))
    whole: NDArray[np.int64] = np.clip(mantissa, MANTISSA_MIN, MANTISSA_MAX).astype(np.int64)
    return np.asarray(dynamics.loihi_bias(whole, exponent), np.int64)


class _Past:
    """Values of earlier steps, for the delays of a run."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Values]] = {}

    def passed(self, operation: Delay, x: Values) -> Values:
        """What entered a delay ``steps`` steps ago; zeros when nothing had."""
        line = self._lines.setdefault(operation.name, [])
        line.append(x)
        return line.pop(0) if len(line) > operation.steps else np.zeros_like(x)

    def through(self, synapse: Synapse, x: Values) -> Values:
        """One step of a synapse."""
        for operation in synapse.operations:
            match operation:
                case Delay():
                    x = self.passed(operation, x)
                case _:
                    x = apply(operation, x)
        return x


def simulate(
    network: Network,
    x: Values,
    steps: int,
    record: Record | None = None,
    dtype: type[np.floating[Any]] = np.float32,
    watch: Watch | None = None,
) -> Trace:
    """Run a network on frames ``x``, (B, *input_shape) or (T, B, *input_shape), float.

    Integer networks are run in integers whatever ``dtype`` says. Raises RequestError (E_INPUT).
    """
    record = record or Record()
    frames, _ = frames_of(network, x, steps)
    contract = network.contract
    arithmetic = contract.arithmetic
    integer = isinstance(arithmetic, Integer)
    host = arithmetic.host_scale if isinstance(arithmetic, Integer) else {}
    batch = frames.shape[1]
    cells = {
        layer.name: Cell.of(layer.neuron, contract, lambda values: values.astype(dtype))
        for layer in network.layers
        if not isinstance(layer.neuron, Sum)
    }
    states = {name: State() for name in cells}
    membranes: dict[str, Values] = {}
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
            work = np.float64 if integer and layer.name not in host else dtype
            current: Values = np.zeros((batch, *layer.shape), work)
            for synapse in layer.synapses:
                current = current + past.through(synapse, values[synapse.source].astype(work))
            if isinstance(arithmetic, Integer):
                current = integer_current(arithmetic, layer, current)
            neuron = layer.neuron
            if isinstance(neuron, Sum):
                u = value = current
            elif isinstance(arithmetic, Integer):
                v = membranes.get(layer.name)
                u, value, membranes[layer.name] = _step_integer(neuron, current, v)
            else:
                cell = cells[layer.name]
                state = cell.membrane(states[layer.name], current)
                u = value = np.asarray(state.v)
                if isinstance(neuron, Spiking):
                    value = cell.decide(u)
                states[layer.name] = cell.settle(state, value)
            if isinstance(neuron, Spiking):
                count = int(np.count_nonzero((current != 0) | value))
                active.setdefault(layer.name, []).append(count)
            if watch is not None and not isinstance(neuron, Sum):
                watch(layer.name, t, u)
            values[layer.name] = before[layer.name] = value
            history[layer.name].append(value)
            if record.currents:
                flat = current[: record.currents].reshape(-1, layer.size)
                currents[layer.name].append(flat.astype(np.int32) if integer else flat)
        outputs.append(values[network.output].reshape(batch, -1))
    return _trace(network, frames, history, currents, active, outputs, record)


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
    kind = np.int32 if integer else outputs[0].dtype if outputs[0].dtype != bool else np.float32
    return Trace(
        np.stack(outputs).astype(kind),
        fired,
        spikes,
        {name: np.stack(values) for name, values in currents.items() if values},
        {name: np.array(counts, np.int64) for name, counts in active.items()},
    )
