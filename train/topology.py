"""Which populations of a module feed which, through which linear maps: a Network without weights.

The module is called once on a carried value that records. What becomes of it is for counting alone:
every weight is one, normalisation and constant factors are left out. An exporter records the
weights too; both see the same layers and synapses, which is what makes counts of both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..network import layers as net
from ..network.contract import Contract
from ..network.layers import Layer, Network, Shape, Synapse
from ..network.neurons import IF, Sum
from ..network.shapes import shape_after
from . import operations
from .carried import Carried
from .spiking import Population

INPUT = "input"
READOUT = "output"


@dataclass(frozen=True)
class Topology:
    """The network without weights, and the neuron module of every spiking layer."""

    network: Network
    populations: dict[str, Population]


@dataclass(frozen=True, eq=False)
class Flow:
    """A value on its way: the synapses that it will be, and its shape."""

    synapses: tuple[Synapse, ...]
    shape: Shape

    @property
    def weighted(self) -> bool:
        """Whether weights can only follow a sum: it is one, or has passed weights."""
        return len(self.synapses) > 1 or bool(self.synapses[0].weighted)


def topology(model: nn.Module, shape: Shape, contract: Contract) -> Topology:
    """The layers of a module for inputs (C, H, W) = ``shape``, nothing computed.

    Raises RequestError (E_TOPOLOGY) for what is no linear map between populations.
    """
    recorder = _Recorder()
    with torch.no_grad():
        end = model(Carried(Flow((Synapse(INPUT),), shape), recorder)).value
    output = end.synapses[0].source
    if end.weighted or end.synapses[0].operations or output == INPUT:
        output = recorder.layer(READOUT, Sum(), end).synapses[0].source
    layers = tuple(recorder.layers)
    return Topology(Network(INPUT, shape, layers, output, contract), recorder.populations)


def _refuse(what: str) -> NoReturn:
    raise RequestError("E_TOPOLOGY", f"synapses cannot be counted through '{what}'")


def _ones(shape: Sequence[int]) -> Any:
    """Ones that take no memory."""
    return np.broadcast_to(np.float32(1), tuple(shape))


class _Recorder:
    """A `Treatment` that builds layers out of the calls it sees."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.populations: dict[str, Population] = {}
        self._sums: dict[Flow, Flow] = {}

    def layer(self, kind: str, neuron: IF | Sum, value: Flow) -> Flow:
        """A new layer fed by ``value``, and what it emits."""
        name = f"{kind}.{len(self.layers)}"
        self.layers.append(Layer(name, neuron, value.shape, value.synapses))
        return Flow((Synapse(name),), value.shape)

    def _sum(self, value: Flow) -> Flow:
        """A value as the sum that all its users share.

        Neurons that it feeds already (a pre-activation block fires on a current and adds to it)
        get it from there, so that no weights stand twice.
        """
        if value not in self._sums:
            fed = [n for n, one in enumerate(self.layers) if one.synapses is value.synapses]
            self._sums[value] = self.layer("sum", Sum(), value)
            for n in fed:
                self.layers[n] = replace(self.layers[n], synapses=self._sums[value].synapses)
            if fed:
                self.layers.insert(fed[0], self.layers.pop())
        return self._sums[value]

    def _chained(self, value: Flow, operation: net.Operation) -> Flow:
        weights = isinstance(operation, net.Weighted)
        if len(value.synapses) > 1 or (value.weighted and weights):
            value = self._sum(value)
        (synapse,) = value.synapses
        longer = replace(synapse, operations=(*synapse.operations, operation))
        return Flow((longer,), shape_after(operation, value.shape))

    def example(self, value: Flow) -> Tensor:
        """A meta tensor (1, *shape)."""
        return torch.empty((1, *value.shape), device="meta")

    def linear(self, value: Flow, operation: operations.LinearMap) -> Flow:
        """Dense or Conv of ones."""
        return self._chained(value, _map(operation))

    def normalise(self, value: Flow, norm: operations.Norm) -> Flow:  # noqa: ARG002 - the protocol
        """Folded away: no synapse more or less."""
        return value

    def fire(self, value: Flow, module: Population) -> Flow:
        """A spiking layer."""
        emitted = self.layer("neurons", IF(_ones(())), value)
        self.populations[self.layers[-1].name] = module
        return emitted

    def recur(self, value: Flow, module: Population, weights: operations.LinearMap) -> Flow:
        """A spiking layer that is also its own source."""
        name = f"neurons.{len(self.layers)}"
        own = Synapse(name, (_map(weights),))
        return self.fire(Flow((*value.synapses, own), value.shape), module)

    def fixed(self, value: Flow, operation: operations.FixedMap) -> Flow:
        """Pooling and flatten."""
        match operation:
            case operations.Flatten(start=start, end=end):
                return self._chained(value, net.Flatten("flatten", start, end))
            case operations.AveragePool() | operations.SumPool():
                windows = (operation.kernel, operation.stride, operation.padding)
                return self._chained(value, net.SumPool("pool", *windows))
            case operations.Reshape():
                _refuse("reshape")

    def scale(self, value: Flow, factor: float | Tensor) -> Flow:  # noqa: ARG002 - the protocol
        """A factor moves no synapse."""
        return value

    def add(self, a: Flow, b: Flow) -> Flow:
        """Branches meet: their synapses feed the same layer."""
        left, right = self._shared(a), self._shared(b)
        return Flow((*left.synapses, *right.synapses), a.shape)

    def _shared(self, value: Flow) -> Flow:
        fed = any(layer.synapses is value.synapses for layer in self.layers)
        return self._sum(value) if fed and value.weighted else self._sums.get(value, value)

    def join(self, values: Sequence[Flow], axis: int) -> Flow:  # noqa: ARG002 - the protocol
        """Refused."""
        _refuse("cat")

    def replace(self, value: Flow, function: Callable[[Tensor], Tensor], name: str) -> Flow:  # noqa: ARG002
        """Refused."""
        _refuse(name)


def _map(operation: operations.LinearMap) -> net.Dense | net.Conv:
    weight = _ones(operation.weight.shape)
    if isinstance(operation, operations.Affine):
        return net.Dense("weights", weight)
    places = (operation.stride, operation.padding, operation.dilation, operation.groups)
    return net.Conv("weights", weight, None, *places)
