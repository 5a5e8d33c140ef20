"""Event-driven C++ engine on the CPU: the work follows the spikes; float32 or Loihi integers.

Every current is summed in one fixed order, (ky, kx, channel) and then synapse by synapse, without
fused products, so that a run gives the same bits on every machine and at every batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network import loihi
from ...network.bounds import bias_sums
from ...network.contract import Integer
from ...network.dynamics import WEIGHT_SHIFT
from ...network.layers import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Shape,
    SumPool,
    Synapse,
)
from ...network.linear import through
from ...network.neurons import IF, LIF, Sum, decay_of
from ...network.shapes import shape_after
from ...network.simulate import frames_of, integer_current
from ...network.support import Table, refuse_unsupported
from ...network.trace import Record, Trace
from ..engine import load
from ..recording import MOST_SAMPLES

if TYPE_CHECKING:
    from ..engine._engine import FloatBuilder, FloatPlan, IntegerBuilder, IntegerPlan

Values = NDArray[Any]
Axes = tuple[int, int, int]


def _axes(shape: Shape) -> Axes:
    """A population as the engine sees it: an image, or N channels of one pixel."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (math.prod(shape), 1, 1)


def _whole(values: Values, name: str, layer: Layer) -> NDArray[np.int32]:
    """Whole numbers held in floats to int32."""
    rounded = np.rint(values)
    wrong = ~np.isfinite(values) | (values != rounded) | (abs(rounded) >= 2**31)
    if wrong.any():
        raise RequestError(
            "E_RANGE",
            f"'{name}' (layer '{layer.name}') holds {values[wrong].flat[0]}; integer arithmetic "
            "expects whole numbers of 32 bits",
        )
    return np.ascontiguousarray(rounded, dtype=np.int32)


def _spread(parameter: Values, shape: Shape) -> Values:
    """A parameter as the engine takes it: one value, one per channel, or one per neuron."""
    if parameter.size == 1:
        return np.ascontiguousarray(parameter.reshape(1))
    if len(shape) == 3 and parameter.shape == (shape[0], 1, 1):
        return np.ascontiguousarray(parameter.reshape(-1))
    return np.ascontiguousarray(np.broadcast_to(parameter, shape).reshape(-1))


class _Lowering:
    """Walks a network once and hands it to a builder of the extension.

    Between two linear operations of one synapse stands a relay, a population of bare sums.
    """

    def __init__(self, network: Network, builder: Any, runtime: str) -> None:
        self.network = network
        self.builder = builder
        self.runtime = runtime
        arithmetic = network.contract.arithmetic
        self.integer = arithmetic if isinstance(arithmetic, Integer) else None
        self.host = self.integer.host_scale if self.integer else {}
        self.groups: dict[str, int] = {}
        self.injected: list[Layer] = []

    def _refuse(self, layer: Layer, reason: str) -> RequestError:
        return RequestError(
            "E_UNSUPPORTED",
            f"runtime '{self.runtime}' cannot run layer '{layer.name}': {reason}",
        )

    def lower(self) -> None:
        """Every layer in order; inputs of the plan: the network's if used, then host layers'."""
        network = self.network
        own = (layer for layer in network.layers if layer.name not in self.host)
        if any(synapse.source == network.input for layer in own for synapse in layer.synapses):
            largest = network.contract.input_levels * network.contract.input_scale
            limit = math.ceil(largest) if self.integer else 0
            self.groups[network.input] = self.builder.input(_axes(network.input_shape), limit)
        for layer in network.layers:
            if self.integer and layer.name in self.host:
                self._host_layer(layer, self.integer.bias_exponents[layer.name])
                continue
            ends = [self._walk(layer, synapse) for synapse in layer.synapses]
            group = self.groups[layer.name] = self._group(layer)
            for source, operation in ends:
                self._edge(layer, source, group, operation)

    def _host_layer(self, layer: Layer, exponent: int) -> None:
        """A layer whose current comes from outside, one bias per neuron and step."""
        for synapse in layer.synapses:
            if synapse.source != self.network.input:
                raise self._refuse(
                    layer,
                    "the host computes its current and knows the input only, but it is fed by "
                    f"'{synapse.source}'",
                )
        largest = max(-loihi.MANTISSA_MIN * 2.0**exponent, 1.0)
        source = self.builder.input(_axes(layer.shape), largest)
        group = self.groups[layer.name] = self._integer(layer, np.zeros(1, np.int32))
        self.builder.inject(source, group)
        self.injected.append(layer)

    def _walk(self, layer: Layer, synapse: Synapse) -> tuple[int, Operation | None]:
        """Relays for all operations but the last; (source, last operation; None: identity)."""
        source = self.groups[synapse.source]
        shape = self.network.shape_of(synapse.source)
        pending: Operation | None = None
        pending_shape = shape
        for operation in synapse.operations:
            shape = shape_after(operation, shape)
            if isinstance(operation, Flatten):
                continue  # the engine's dense maps and identities read C, H, W order
            if pending is not None:
                source = self._relay(layer, source, pending, pending_shape)
            pending, pending_shape = operation, shape
        if shape != layer.shape:
            raise RequestError(
                "E_SHAPE",
                f"a synapse from '{synapse.source}' makes shape {list(shape)}; layer "
                f"'{layer.name}' has {list(layer.shape)}",
            )
        if pending is not None and _axes(pending_shape) != _axes(layer.shape):
            source, pending = self._relay(layer, source, pending, pending_shape), None
        return source, pending

    def _relay(self, layer: Layer, source: int, operation: Operation, shape: Shape) -> int:
        relay: int = self.builder.relay(_axes(shape))
        self._edge(layer, source, relay, operation)
        return relay

    def _edge(self, layer: Layer, source: int, target: int, operation: Operation | None) -> None:
        match operation:
            case Dense(weight=weight):
                self.builder.dense(source, target, *self._weights(layer, operation, weight))
            case Conv(weight=weight):
                self.builder.conv(
                    source,
                    target,
                    *self._weights(layer, operation, weight),
                    stride=operation.stride,
                    padding=operation.padding,
                    dilation=operation.dilation,
                    groups=operation.groups,
                )
            case SumPool() | AvgPool():
                self.builder.pool(
                    source,
                    target,
                    kernel=operation.kernel,
                    stride=operation.stride,
                    padding=operation.padding,
                    mean=isinstance(operation, AvgPool),
                )
            case _:
                self.builder.identity(source, target)

    def _weights(
        self, layer: Layer, operation: Dense | Conv, weight: Values
    ) -> tuple[Values, Values | None]:
        if self.integer:
            return _whole(weight, operation.name, layer), None  # biases: see _integer_bias
        bias = operation.bias
        return np.ascontiguousarray(weight), None if bias is None else np.ascontiguousarray(bias)

    def _integer_bias(self, layer: Layer) -> NDArray[np.int32]:
        """What a silent network puts into every neuron, in membrane units."""
        positive, negative = bias_sums(self.network, layer)
        units = _whole((positive - negative) * 2**WEIGHT_SHIFT, f"{layer.name} bias * 64", layer)
        if len(layer.shape) == 3 and (units == units[:, :1, :1]).all():
            units = units[:, :1, :1]
        return np.ascontiguousarray(units.reshape(-1))

    def _group(self, layer: Layer) -> int:
        if self.integer:
            return self._integer(layer, self._integer_bias(layer))
        return self._float(layer)

    def _float(self, layer: Layer) -> int:
        neuron, axes, contract = layer.neuron, _axes(layer.shape), self.network.contract
        group: int
        if isinstance(neuron, Sum):
            group = self.builder.sum(axes)
            return group
        group = self.builder.spiking(
            axes,
            _spread(decay_of(neuron), layer.shape),
            _spread(neuron.threshold, layer.shape),
            _spread(neuron.v_reset, layer.shape),
            contract.compare,
            contract.reset,
        )
        return group

    def _integer(self, layer: Layer, bias: NDArray[np.int32]) -> int:
        neuron, axes, contract = layer.neuron, _axes(layer.shape), self.network.contract
        group: int
        if isinstance(neuron, Sum):
            group = self.builder.sum(axes, bias)
            return group
        if contract.compare != "gt" or contract.reset != "value" or neuron.v_reset.any():
            raise self._refuse(layer, "integers fire at v > threshold and reset to 0")
        dv = _spread(loihi.decay_units(decay_of(neuron)).astype(np.int32), layer.shape)
        threshold = _spread(_whole(neuron.threshold, layer.name, layer), layer.shape)
        du = np.full(1, loihi.NO_MEMORY, np.int32)
        group = self.builder.spiking(axes, du, dv, threshold, bias)
        return group


@dataclass(frozen=True, eq=False)
class EventSession:
    """A network handed to the engine, ready to run batches."""

    network: Network
    plan: FloatPlan | IntegerPlan
    groups: dict[str, int]
    host: tuple[Layer, ...]

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames float32 (B, *input_shape), shown at every step, or (T, B, *input_shape).

        Raises RequestError (E_INPUT) for a wrong shape or dtype, values that are not finite, and,
        on integers without a host layer, values that are not whole or beyond the contract's.
        """
        record = record or Record()
        if x.dtype != np.float32:
            raise RequestError("E_INPUT", f"the input has dtype {x.dtype}; expected float32")
        frames, static = frames_of(self.network, x, steps)
        shown = frames[:1] if static else frames
        inputs = [self._flat(shown, static)] if self.network.input in self.groups else []
        arithmetic = self.network.contract.arithmetic
        if isinstance(arithmetic, Integer):
            inputs += [self._host_current(arithmetic, layer, shown, static) for layer in self.host]
        try:
            outputs, fired, spikes, currents, _, active = self.plan.run(
                inputs, steps, spikes=record.spikes, currents=record.currents
            )
        except ValueError as error:
            raise RequestError("E_INPUT", f"the event engine refuses the input: {error}") from error
        counted = np.count_nonzero(shown, axis=1).astype(np.int64)
        every = {self.network.input: np.repeat(counted, steps // len(counted), axis=0)}
        named = {layer.name: self.groups[layer.name] for layer in self.network.layers}
        for layer in self.network.layers:
            every[layer.name] = fired[named[layer.name]].reshape(steps, *layer.shape)
        return Trace(
            outputs,
            every,
            {name: spikes[group] for name, group in named.items() if group in spikes},
            {name: currents[group] for name, group in named.items() if group in currents},
            {name: active[group] for name, group in named.items() if group in active},
        )

    def _flat(self, shown: Values, static: bool) -> Values:
        """The network's input as the plan takes it: (B, N) or (T, B, N)."""
        if isinstance(self.network.contract.arithmetic, Integer):
            if not (shown == np.rint(shown)).all() or abs(shown).max(initial=0) >= 2**24:
                raise RequestError(
                    "E_INPUT",
                    "an integer network without a host layer takes whole numbers as input",
                )
            shown = shown.astype(np.int32)
        flat = np.ascontiguousarray(shown.reshape(*shown.shape[:2], -1))
        return flat[0] if static else flat

    def _host_current(
        self, arithmetic: Integer, layer: Layer, shown: Values, static: bool
    ) -> NDArray[np.int32]:
        """The current that the host writes as biases, (B, N) or (T, B, N), membrane units."""
        if not np.isfinite(shown).all():
            raise RequestError("E_INPUT", "the input holds a value that is not finite")
        frames = shown.reshape(-1, *self.network.input_shape)
        written = np.empty((len(frames), layer.size), np.int32)
        for start in range(0, len(frames), MOST_SAMPLES):
            part = frames[start : start + MOST_SAMPLES]
            total = np.zeros((len(part), *layer.shape), np.float32)
            for synapse in layer.synapses:
                total = total + through(synapse, part)
            current = integer_current(arithmetic, layer, total)
            written[start : start + MOST_SAMPLES] = current.reshape(len(part), -1)
        return written if static else written.reshape(len(shown), -1, layer.size)


TABLE: Table = dict.fromkeys((Dense, Conv, SumPool, AvgPool, Flatten, LIF, IF, Sum))
INTEGERS: Table = {**TABLE, AvgPool: "integers have no mean; use a sum pool"}
"""What the engine's integers do."""


@dataclass(frozen=True)
class EventRuntime:
    """The engine as a runtime; it opens the network itself, whatever its arithmetic."""

    name: str
    target: str
    table: Table

    def open(self, network: Network, folder: Path | None) -> EventSession:  # noqa: ARG002 - the network was read from the artefact
        """Hand a network to the engine.

        Raises RequestError (E_UNSUPPORTED, E_SHAPE, E_RANGE) naming layer and reason,
        CouldNotRunError (E_MISSING) when the extension is not built.
        """
        integer = isinstance(network.contract.arithmetic, Integer)
        table = INTEGERS if integer else self.table
        refuse_unsupported(network, f"runtime '{self.name}' cannot run", table)
        engine = load()
        builder: FloatBuilder | IntegerBuilder = (
            engine.IntegerBuilder() if integer else engine.FloatBuilder()
        )
        lowering = _Lowering(network, builder, self.name)
        try:
            lowering.lower()
            plan = builder.build(lowering.groups[network.layer(network.output).name])
        except ValueError as error:
            raise RequestError("E_ENGINE", f"the event engine refuses it: {error}") from error
        return EventSession(network, plan, lowering.groups, tuple(lowering.injected))


PLUGIN = EventRuntime("event", "nir", TABLE)
