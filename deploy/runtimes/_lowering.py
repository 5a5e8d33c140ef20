"""A network handed to the event engine's extension, part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.contract import Integer
from ...network.dynamics import Cell, IntegerCell
from ...network.integer_sums import neuron_bias
from ...network.layers import (
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
from ...network.loihi import MANTISSA_MIN
from ...network.loops import components
from ...network.neurons import Sum
from ...network.shapes import shape_after

Values = NDArray[Any]
Axes = tuple[int, int, int]


def _axes(shape: Shape) -> Axes:
    """A population as the engine sees it: an image, or N channels of one pixel."""
    match shape:
        case (channels, height, width):
            return channels, height, width
        case (channels, length):
            return channels, 1, length
    return math.prod(shape), 1, 1


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


def _spread(parameter: Values | float, shape: Shape) -> Values:
    """A parameter as the engine takes it: one value, one per channel, or one per neuron."""
    values = np.asarray(parameter)
    per_channel = len(shape) <= 3 and values.shape == (shape[0], *[1] * (len(shape) - 1))
    if values.size != 1 and not per_channel:
        values = np.broadcast_to(values, shape)
    return np.ascontiguousarray(values.reshape(-1))


@dataclass(frozen=True, eq=False)
class _Place:
    """Where the values of a synapse stand: ``operation`` makes values of ``shape`` of what a group
    (its number, or the name of a layer) emitted ``delay`` steps ago."""

    source: int | str
    shape: Shape
    delay: int = 0
    operation: Operation | None = None


class Lowering:
    """Walks a network once and hands it to a builder of the extension.

    Between two operations of one synapse, and before a delay, stands a relay, a population of
    bare sums. ``groups`` numbers the layers, in the order they run; ``relays`` names the layer of
    each relay; ``loops`` holds the first and last number of each loop; ``injected`` the layers
    whose current the host computes.
    """

    def __init__(self, network: Network, builder: Any, runtime: str) -> None:
        self.network = network
        self.builder = builder
        self.runtime = runtime
        arithmetic = network.contract.arithmetic
        self.integer = arithmetic if isinstance(arithmetic, Integer) else None
        self.host = self.integer.host_scale if self.integer else {}
        self.groups: dict[str, int] = {}
        self.relays: dict[int, str] = {}
        self.loops: list[tuple[int, int]] = []
        self.injected: list[Layer] = []
        self._edges: list[tuple[Layer, _Place, int]] = []

    def _refuse(self, layer: Layer, reason: str) -> RequestError:
        return RequestError(
            "E_UNSUPPORTED",
            f"runtime '{self.runtime}' cannot run layer '{layer.name}': {reason}",
        )

    def lower(self) -> None:
        """Every layer; inputs of the plan: the network's if used, then host layers'."""
        network = self.network
        own = (layer for layer in network.layers if layer.name not in self.host)
        if any(synapse.source == network.input for layer in own for synapse in layer.synapses):
            largest = network.contract.input_levels * network.contract.input_scale
            limit = math.ceil(largest) if self.integer else 0
            self.groups[network.input] = self.builder.input(_axes(network.input_shape), limit)
        for component in components(network):
            hosted = [layer for layer in component if layer.name in self.host]
            if self.integer and hosted:
                self._host_layer(hosted[0], self.integer.bias_exponents[hosted[0].name])
            else:
                self._component(component)
        for layer, place, target in self._edges:
            self._edge(layer, place, target)

    def _component(self, component: tuple[Layer, ...]) -> None:
        """Layers that run together. What enters a loop from outside is summed before it, over all
        steps at once."""
        names = {layer.name for layer in component}
        synapses = [(layer, synapse) for layer in component for synapse in layer.synapses]
        loop = any(synapse.source in names for _, synapse in synapses)
        outside = {
            synapse: self._relayed(layer, self._walk(layer, synapse))
            for layer, synapse in synapses
            if loop and synapse.source not in names
        }
        first = len(self.builder)
        for layer in component:
            places = [outside.get(s) or self._walk(layer, s) for s in layer.synapses]
            group = self.groups[layer.name] = self._group(layer)
            self._edges += [(layer, place, group) for place in places]
        if loop:
            self.loops.append((first, len(self.builder) - 1))

    def _host_layer(self, layer: Layer, exponent: int) -> None:
        """A layer whose current comes from outside, one bias per neuron and step."""
        for synapse in layer.synapses:
            if synapse.source != self.network.input:
                raise self._refuse(
                    layer,
                    "the host computes its current and knows the input only, but it is fed by "
                    f"'{synapse.source}'",
                )
        largest = max(-MANTISSA_MIN * 2.0**exponent, 1.0)
        source = self.builder.input(_axes(layer.shape), largest)
        group = self.groups[layer.name] = self._integer(layer, np.zeros(1, np.int32))
        self.builder.inject(source, group)
        self.injected.append(layer)

    def _walk(self, layer: Layer, synapse: Synapse) -> _Place:
        """Relays for all operations but the last."""
        network = self.network
        shape = network.shape_of(synapse.source)
        place = _Place(synapse.source, shape, int(network.late(layer, synapse)))
        for operation in synapse.operations:
            seen, shape = shape, shape_after(operation, shape)
            if isinstance(operation, Flatten):
                continue  # the engine's dense maps and identities read C, H, W order
            place = self._relayed(layer, place)
            if isinstance(operation, Delay):
                place = replace(place, delay=place.delay + operation.steps)
                continue
            windows = isinstance(operation, Conv | Conv1d | SumPool | AvgPool)
            if windows and _axes(place.shape) != _axes(seen):
                place = self._relay(layer, place, seen)
            place = replace(place, operation=operation, shape=shape)
        if shape != layer.shape:
            raise RequestError(
                "E_SHAPE",
                f"a synapse from '{synapse.source}' makes shape {list(shape)}; layer "
                f"'{layer.name}' has {list(layer.shape)}",
            )
        same = _axes(place.shape) == _axes(layer.shape)
        return place if same else self._relayed(layer, place)

    def _relayed(self, layer: Layer, place: _Place) -> _Place:
        """The values behind the operation, where there is one."""
        return place if place.operation is None else self._relay(layer, place, place.shape)

    def _relay(self, layer: Layer, place: _Place, shape: Shape) -> _Place:
        relay: int = self.builder.relay(_axes(shape))
        self.relays[relay] = layer.name
        self._edges.append((layer, place, relay))
        return _Place(relay, shape)

    def _edge(self, layer: Layer, place: _Place, target: int) -> None:
        source = self.groups[place.source] if isinstance(place.source, str) else place.source
        builder, operation, delay = self.builder, place.operation, place.delay
        exponents = self.integer.weight_exponents if self.integer else {}
        shift = 0 if operation is None else exponents.get(operation.name, 0)
        if isinstance(operation, Conv1d):
            operation = operation.as_conv()
        match operation:
            case Dense():
                weights = self._weights(layer, operation)
                builder.dense(source, target, *weights, delay=delay, shift=shift)
            case Conv():
                builder.conv(
                    source,
                    target,
                    *self._weights(layer, operation),
                    stride=operation.stride,
                    padding=operation.padding,
                    dilation=operation.dilation,
                    groups=operation.groups,
                    delay=delay,
                    shift=shift,
                )
            case SumPool() | AvgPool():
                builder.pool(
                    source,
                    target,
                    kernel=operation.kernel,
                    stride=operation.stride,
                    padding=operation.padding,
                    mean=isinstance(operation, AvgPool),
                    delay=delay,
                )
            case Scale(scale=scale):
                builder.identity(source, target, _spread(scale, place.shape), delay=delay)
            case _:
                builder.identity(source, target, delay=delay)

    def _weights(self, layer: Layer, operation: Dense | Conv) -> tuple[Values, Values | None]:
        weight, bias = operation.weight, operation.bias
        if self.integer:
            return _whole(weight, operation.name, layer), None  # biases: see _integer_bias
        return np.ascontiguousarray(weight), None if bias is None else np.ascontiguousarray(bias)

    def _integer_bias(self, layer: Layer) -> NDArray[np.int32]:
        """What a silent network puts into every neuron, in membrane units."""
        units = _whole(neuron_bias(self.network, layer), f"{layer.name} bias * 64", layer)
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
        cell = Cell.of(neuron, contract, lambda values: values)

        def rows(values: Values | float) -> Values:
            return _spread(np.asarray(values, np.float32), layer.shape)

        own = {
            "decay": rows(0.0 if cell.stateless else cell.decay),
            "driven": None if cell.gain is None else (rows(cell.gain), rows(cell.leak)),
            "filtered": None
            if cell.synaptic_decay is None
            else (rows(cell.synaptic_decay), rows(cell.synaptic_gain)),
        }
        if cell.threshold is None:
            group = self.builder.leaky(axes, **own)
            return group
        resets = cell.v_reset is not None
        group = self.builder.spiking(
            axes,
            threshold=rows(cell.threshold),
            v_reset=rows(cell.v_reset if resets else 0.0),
            compare=contract.compare,
            reset="late" if contract.late_reset and resets else contract.reset,
            **own,
        )
        return group

    def _integer(self, layer: Layer, bias: NDArray[np.int32]) -> int:
        axes = _axes(layer.shape)
        group: int
        if isinstance(layer.neuron, Sum):
            group = self.builder.sum(axes, bias)
            return group
        cell = IntegerCell.of(
            layer.neuron, self.network.contract, lambda values: _whole(values, layer.name, layer)
        )
        du, dv, threshold = (_spread(x, layer.shape) for x in (cell.du, cell.dv, cell.threshold))
        contract = self.network.contract
        group = self.builder.spiking(
            axes, du, dv, threshold, bias, compare=contract.compare, reset=contract.reset
        )
        return group
