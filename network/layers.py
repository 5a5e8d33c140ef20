"""Network, Layer, Synapse and the linear operations a synapse is made of.

Everything here is frozen data. Weights are float32; an integer network keeps its integers in
float32 too (exact up to 2^24), its arithmetic is the contract's affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

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


@dataclass(frozen=True, eq=False)
class Conv1d:
    """Cross-correlation over (C, L). ``weight`` (Cout, Cin/groups, K), ``bias`` (Cout,)."""

    name: str
    weight: Array
    bias: Array | None = None
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def as_conv(self) -> Conv:
        """The same map over images of height 1, (C, 1, L)."""
        return Conv(
            self.name,
            self.weight[:, :, np.newaxis],
            self.bias,
            (1, self.stride),
            (0, self.padding),
            (1, self.dilation),
            self.groups,
        )


@dataclass(frozen=True, eq=False)
class Scale:
    """y = s*x, elementwise. ``scale`` broadcasts against the shape of x."""

    name: str
    scale: Array


@dataclass(frozen=True)
class Delay:
    """What enters comes out ``steps`` steps later; before that, zeros."""

    name: str
    steps: int


@dataclass(frozen=True)
class SumPool:
    """Sum over windows of (C, H, W)."""

    name: str
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def as_conv(self, channels: int) -> Conv:
        """The same map of images (channels, H, W)."""
        weight = np.ones((channels, 1, *self.kernel), np.float32)
        return Conv(self.name, weight, None, self.stride, self.padding, groups=channels)


@dataclass(frozen=True)
class AvgPool:
    """Mean over windows of (C, H, W); padding counts as zeros."""

    name: str
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def as_conv(self, channels: int) -> Conv:
        """The same map of images (channels, H, W)."""
        share = 1 / (self.kernel[0] * self.kernel[1])
        weight = np.full((channels, 1, *self.kernel), share, np.float32)
        return Conv(self.name, weight, None, self.stride, self.padding, groups=channels)


@dataclass(frozen=True)
class Flatten:
    """Join the axes ``start`` to ``end`` (batch and time not counted) in C, H, W order."""

    name: str
    start: int = 0
    end: int = -1


Operation = Dense | Conv | Conv1d | Scale | SumPool | AvgPool | Flatten | Delay
Weighted = Dense | Conv | Conv1d | Scale
"""The operations that multiply."""


@dataclass(frozen=True, eq=False)
class Synapse:
    """A linear map from one source (the input's or a layer's name) into a layer.

    From a source that is not earlier than the layer it is recurrent: values arrive one step late.
    """

    source: str
    operations: tuple[Operation, ...] = ()

    @property
    def weighted(self) -> tuple[Weighted, ...]:
        """The operations that multiply."""
        return tuple(op for op in self.operations if isinstance(op, Weighted))

    @property
    def delay(self) -> int:
        """Steps that its delays take together."""
        return sum(op.steps for op in self.operations if isinstance(op, Delay))


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
    """Layers, the names of both ends, and the contract.

    A layer's current comes from this step's values of the layers before it, and from the last
    step's values of itself and of the layers behind it.

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

    @cached_property
    def positions(self) -> dict[str, int]:
        """The place of every source in the order of a step; the input comes first, at -1."""
        return {self.input: -1, **{layer.name: n for n, layer in enumerate(self.layers)}}

    def late(self, layer: Layer, synapse: Synapse) -> bool:
        """Whether a synapse of ``layer`` is recurrent: it carries the values of the last step."""
        return self.positions[synapse.source] >= self.positions[layer.name]

    def lateness(self, layer: Layer, synapse: Synapse) -> int:
        """Steps from a value's step to its arrival: the synapse's delays, and one more where it is
        recurrent."""
        return synapse.delay + int(self.late(layer, synapse))

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

    @property
    def stored_shape(self) -> Shape:
        """Shape of one stored input: a frame, or, where the contract says events, one a step."""
        events = self.contract.input_coding == "events"
        return (self.contract.steps, *self.input_shape) if events else self.input_shape

    def frames(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Stored inputs (B, *stored_shape) to what enters the network, of events time in front.

        See `Contract.frames`. Raises RequestError (E_INPUT).
        """
        frames = self.contract.frames(x)
        if self.contract.input_coding != "events":
            return frames
        if x.shape[1:] != self.stored_shape:
            raise RequestError(
                "E_INPUT",
                f"the input has shape {list(x.shape)}; events of this network are stored as [B, "
                f"{', '.join(map(str, self.stored_shape))}]",
            )
        return np.ascontiguousarray(np.swapaxes(frames, 0, 1))

    def operations(self) -> Iterator[tuple[Layer, Synapse, Operation]]:
        """Every operation with the synapse and the layer it stands in."""
        for layer in self.layers:
            for synapse in layer.synapses:
                for operation in synapse.operations:
                    yield layer, synapse, operation

    def with_contract(self, contract: Contract) -> Network:
        """The same network under another contract."""
        return replace(self, contract=contract)
