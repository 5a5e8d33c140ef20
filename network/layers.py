"""Network, Layer, Synapse and the linear operations a synapse is made of.

Everything here is frozen data. Weights are float32; an integer network keeps its integers in
float32 too (exact up to 2^24), its arithmetic is the contract's affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .contract import Contract
from .neurons import Neuron

Shape = tuple[int, ...]
Pair = tuple[int, int]
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dense:
    """y = W x + b. ``weight`` (out, in), ``bias`` (out,) or None."""

    name: str
    weight: Array
    bias: Array | None = None


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation as in torch. ``weight`` (Cout, Cin/groups, KH, KW), ``bias`` (Cout,)."""

    name: str
    weight: Array
    bias: Array | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class SumPool:
    """Sum over windows of (C, H, W)."""

    name: str
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class AvgPool:
    """Mean over windows of (C, H, W); padding counts as zeros."""

    name: str
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class Flatten:
    """Join the axes ``start`` to ``end`` (batch and time not counted) in C, H, W order."""

    name: str
    start: int = 0
    end: int = -1


Operation = Dense | Conv | SumPool | AvgPool | Flatten


@dataclass(frozen=True, eq=False)
class Synapse:
    """A linear map from one source (the input's or a layer's name) into a layer."""

    source: str
    operations: tuple[Operation, ...] = ()
    delay: int = 0

    @property
    def weighted(self) -> tuple[Dense | Conv, ...]:
        """The operations that multiply."""
        return tuple(op for op in self.operations if isinstance(op, (Dense, Conv)))


@dataclass(frozen=True, eq=False)
class Layer:
    """One population: its neuron, its shape without batch and time, and what feeds it."""

    name: str
    neuron: Neuron
    shape: Shape
    synapses: tuple[Synapse, ...]

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Network:
    """Layers in topological order, the names of both ends, and the contract.

    ``output`` names the layer whose values leave the network; ``output_port`` is the name of the
    NIR Output node.
    """

    input: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    output: str
    contract: Contract
    output_port: str = "output"

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """The layers by name."""
        return {layer.name: layer for layer in self.layers}

    def layer(self, name: str) -> Layer:
        """The layer of this name; RequestError (E_LAYER) when there is none."""
        try:
            return self.by_name[name]
        except KeyError:
            names = ", ".join(self.by_name)
            raise RequestError(
                "E_LAYER", f"there is no layer '{name}'; the layers are {names}"
            ) from None

    def shape_of(self, source: str) -> Shape:
        """Shape of a source: the input's or a layer's."""
        return self.input_shape if source == self.input else self.layer(source).shape

    def operations(self) -> Iterator[tuple[Layer, Synapse, Operation]]:
        """Every operation with the synapse and the layer it stands in."""
        for layer in self.layers:
            for synapse in layer.synapses:
                for operation in synapse.operations:
                    yield layer, synapse, operation

    def with_contract(self, contract: Contract) -> Network:
        """The same network under another contract."""
        return replace(self, contract=contract)
