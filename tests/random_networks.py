"""One hypothesis generator of random networks and inputs for every room's tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from snnpipe.network.contract import Contract
from snnpipe.network.layers import (
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
from snnpipe.network.neurons import (
    LI,
    CubaLI,
    Neuron,
    Spiking,
    Stateful,
    Sum,
    Threshold,
)
from snnpipe.network.shapes import shape_after
from snnpipe.network.support import PARTS, Recurrent

FLOAT_ONLY = (Conv1d, Scale, LI, CubaLI, Threshold)
"""What networks in integers do not have, for `networks(without=FLOAT_ONLY)`."""

Chain = tuple[Operation, ...]

_EIGHTHS = {
    "decay": (0, 7),
    "synaptic_decay": (0, 7),
    "threshold": (2, 10),
    "v_reset": (-2, 1),
    "gain": (4, 12),
    "synaptic_gain": (4, 12),
    "leak": (-1, 2),
}
"""Least and largest value of a parameter, in eighths."""
_NEUTRAL = {"gain", "synaptic_gain", "leak"}
_RESETS = [("value", "same_step"), ("subtract", "same_step"), ("subtract", "next_after_decay")]


def dyadic(rng: np.random.Generator, shape: Shape, bits: int = 4) -> np.ndarray:
    """Random multiples of 2^-bits in [-1, 1]: sums of a few thousand are exact in float32."""
    return (rng.integers(-(2**bits), 2**bits + 1, shape) / 2**bits).astype(np.float32)


class _Parts:
    """Draws the parts of one network: operations and neurons of the types it may have."""

    def __init__(self, draw: Any, kinds: Collection[type], v_reset: bool) -> None:
        self.draw, self.kinds, self.v_reset = draw, kinds, v_reset
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def now_and_then(self, kind: type, one_in: int = 4) -> bool:
        """Whether a part of this type comes here; never of a type that was left out."""
        return kind in self.kinds and self.number(1, one_in) == one_in

    def number(self, low: int, high: int) -> int:
        """A whole number in a range, ends included."""
        return self.draw(st.integers(low, high))

    def size(self, shape: Shape) -> Shape:
        """The shape of a parameter: one for all, per channel, or per neuron."""
        channel = (shape[0], *([1] * (len(shape) - 1)))
        return self.draw(st.sampled_from([(), channel, shape]))

    def neuron(self, shape: Shape, among: Sequence[type]) -> Neuron:
        """A neuron of one of these types; its parameters are multiples of 1/8, or on no grid."""
        kind = self.draw(st.sampled_from([kind for kind in among if kind in self.kinds]))
        names = {part.name for part in fields(kind)}
        names -= set() if self.v_reset else {"v_reset"}
        names -= set() if self.draw(st.booleans()) else _NEUTRAL
        values = {}
        for name in sorted(names):
            low, high = _EIGHTHS[name]
            unit = self.draw(st.sampled_from([1 / 8, 0.11]))
            eighths = self.rng.integers(low, high + 1, self.size(shape))
            values[name] = (eighths * unit).astype(np.float32)
        return kind(**values)

    def bias(self, out: int) -> np.ndarray | None:
        """A bias, or none."""
        return dyadic(self.rng, (out,)) if self.draw(st.booleans()) else None

    def delayed(self, chain: Sequence[Operation], name: str, always: bool = False) -> Chain:
        """The chain, now and then with a delay somewhere in it."""
        if not (always or self.now_and_then(Delay)):
            return tuple(chain)
        at = self.number(0, len(chain))
        delay = Delay(f"{name}.delay", self.number(int(always), 3))
        return (*chain[:at], delay, *chain[at:])

    def scale(self, shape: Shape, name: str) -> Scale:
        """Powers of two from 1/4 to 2, of either sign."""
        size = self.size(shape)
        signs = self.rng.choice([-1, 1], size)
        return Scale(f"{name}.scale", np.float32(signs * 2.0 ** self.rng.integers(-2, 2, size)))

    def conv(self, shape: Shape, name: str) -> Conv:
        """A convolution over (C, H, W) that fits any image."""
        groups = self.draw(st.sampled_from([g for g in (1, 2, shape[0]) if shape[0] % g == 0]))
        kernel = (self.number(1, 3), self.number(1, 3))
        dilation = (self.number(1, 2), self.number(1, 2))
        padding = ((kernel[0] - 1) * dilation[0], self.number(0, 1) + kernel[1] - 1)
        out = groups * self.number(1, 3)
        weight = dyadic(self.rng, (out, shape[0] // groups, *kernel))
        stride = (self.number(1, 3), self.number(1, 2))
        return Conv(f"{name}.conv", weight, self.bias(out), stride, padding, dilation, groups)

    def conv1d(self, shape: Shape, name: str) -> Conv1d:
        """A convolution over (C, L) that fits any length."""
        conv = self.conv((shape[0], 1, shape[1]), name)
        last = (conv.stride[1], conv.padding[1], conv.dilation[1])
        return Conv1d(conv.name, conv.weight[:, :, 0], conv.bias, *last, conv.groups)

    def chain(self, shape: Shape, name: str) -> Chain:
        """Pool and scale (now and then), then a convolution or, behind a flatten, a dense map."""
        chain: list[Operation] = []
        if len(shape) == 3 and min(shape[1:]) >= 2 and self.number(0, 2) == 0:
            kind = self.draw(st.sampled_from([SumPool, AvgPool]))
            chain.append(kind(f"{name}.pool", (2, 2), (2, self.number(1, 2))))
            shape = shape_after(chain[-1], shape)
        if self.now_and_then(Scale, 6):
            chain.append(self.scale(shape, name))
        if len(shape) == 3 and self.number(0, 3):
            return self.delayed([*chain, self.conv(shape, name)], name)
        if len(shape) == 2 and Conv1d in self.kinds and self.number(0, 3):
            return self.delayed([*chain, self.conv1d(shape, name)], name)
        if len(shape) > 1:
            chain.append(Flatten(f"{name}.flatten"))
        out = self.draw(st.sampled_from([12, 12, 12, 1, 33, 70]))  # 12: shapes that meet again
        return self.delayed([*chain, self.dense(shape, out, name)], name)

    def skip(self, same: Sequence[str], shape: Shape, name: str) -> Synapse:
        """From one of some populations of one shape; now and then scaled or delayed."""
        scale = [self.scale(shape, name)] if self.now_and_then(Scale) else []
        return Synapse(self.draw(st.sampled_from(same)), self.delayed(scale, name))

    def dense(self, shape: Shape, out: int, name: str) -> Dense:
        """A dense map of as many values as ``shape`` has."""
        weight = dyadic(self.rng, (out, int(np.prod(shape))))
        return Dense(f"{name}.dense", weight, self.bias(out))

    def back(self, source: Layer, target: Layer) -> Synapse | None:
        """A recurrent synapse; None where nothing fits the shapes or would hold the values.

        A spike bounds what goes round in a loop, and a membrane or a delay holds it for a step.
        NIR holds an edge once: only a layer's edge to itself has no operation.
        """
        name, shape = f"{target.name}.from_{source.name}", target.shape
        ends = (source.neuron, target.neuron)
        chains: list[list[Operation]] = []
        if source is target:
            chains.append([])
        if source.shape == shape and Scale in self.kinds:
            chains.append([self.scale(shape, name)])
        if source.shape == shape and len(shape) == 3:
            weight = dyadic(self.rng, (shape[0], shape[0], 3, 3))
            chains.append([Conv(f"{name}.conv", weight, self.bias(shape[0]), padding=(1, 1))])
        if source.shape == shape and len(shape) == 2 and Conv1d in self.kinds:
            weight = dyadic(self.rng, (shape[0], shape[0], 3))
            chains.append([Conv1d(f"{name}.conv", weight, self.bias(shape[0]), padding=1)])
        if len(shape) == 1:
            flat: list[Operation] = [Flatten(f"{name}.flatten")] if len(source.shape) > 1 else []
            chains.append([*flat, self.dense(source.shape, target.size, name)])
        held = any(isinstance(neuron, Stateful) for neuron in ends)
        bounded = any(isinstance(neuron, Spiking) for neuron in ends)
        if not chains or not bounded or not (held or Delay in self.kinds):
            return None
        chain = self.draw(st.sampled_from(chains))
        return Synapse(source.name, self.delayed(chain, name, always=not held))


def _loops(parts: _Parts, layers: list[Layer], graded: bool) -> list[Layer]:
    """The layers with up to three recurrent synapses."""
    usable = [
        n for n, layer in enumerate(layers) if graded or not isinstance(layer.neuron, LI | CubaLI)
    ]
    for _ in range(parts.number(0, 3)):
        ends = sorted(parts.draw(st.sampled_from(usable)) for _ in range(2))
        target, source = layers[ends[0]], layers[ends[1]]
        if not any(synapse.source == source.name for synapse in target.synapses):
            synapse = parts.back(source, target)
            if synapse is not None:
                layers[ends[0]] = replace(target, synapses=(*target.synapses, synapse))
    return layers


@st.composite
def networks(
    draw: Any,
    v_reset: bool = True,
    branches: bool = True,
    max_layers: int = 4,
    without: Collection[type] = (),
    graded: bool = False,
) -> Network:
    """A random float32 network whose weights lie on a coarse dyadic grid: its sums are exact.

    Every layer is fed by the layer before it; with ``branches`` some have further synapses: from
    an earlier population of the same shape, into a `Sum` that joins two, and recurrent ones; some
    get their current from a `Sum`. The read-out is a `Sum`, a leaky integrator or the last spiking
    layer. ``v_reset`` allows resting values other than zero; ``without`` names types of
    `support.PARTS` that do not occur; ``graded`` allows leaky integrators anywhere: then sums are
    rounded.
    """
    parts = _Parts(draw, set(PARTS) - set(without), v_reset)
    front = draw(st.integers(1, 3))
    axes = draw(st.sampled_from([2, 2, 2, 1, 1, 0]))
    shape: Shape = (front, *(draw(st.integers(2, 7)) for _ in range(axes)))
    network_input, source = shape, "input"
    layers: list[Layer] = []
    kinds = (*get_args(Spiking), *((LI, CubaLI) if graded else ()))
    for index in range(draw(st.integers(1, max_layers))):
        name = f"layer{index}"
        operations = parts.chain(shape, name)
        for operation in operations:
            shape = shape_after(operation, shape)
        synapses = [Synapse(source, operations)]
        same = [layer.name for layer in layers if layer.shape == shape]
        if branches and same and draw(st.booleans()):
            synapses.append(parts.skip(same, shape, f"{name}.skip"))
        if branches and draw(st.integers(0, 3)) == 0:
            layers.append(Layer(f"{name}.in", Sum(), shape, tuple(synapses)))
            synapses = [Synapse(f"{name}.in")]
        layers.append(Layer(name, parts.neuron(shape, kinds), shape, tuple(synapses)))
        source = name
        if branches and same and draw(st.booleans()):
            source = f"{name}.sum"
            joined = (Synapse(name), parts.skip(same, shape, f"{source}.skip"))
            layers.append(Layer(source, Sum(), shape, joined))
    if draw(st.booleans()):
        flat = (Flatten("fc.flatten"),) if len(shape) > 1 else ()
        dense = parts.dense(shape, draw(st.integers(1, 10)), "fc")
        chain, out = parts.delayed([*flat, dense], "fc"), dense.weight.shape[:1]
        neuron = parts.neuron(out, (Sum, LI, CubaLI))
        layers.append(Layer("readout", neuron, out, (Synapse(source, chain),)))
    if branches and Recurrent in parts.kinds:
        layers = _loops(parts, layers, graded)
    reset, reset_time = draw(st.sampled_from(_RESETS))
    contract = Contract(
        steps=draw(st.integers(1, 5)),
        compare=draw(st.sampled_from(["gt", "ge"])),
        reset=reset,
        reset_time=reset_time,
        input_scale=1 / 16,
        input_levels=16,
    )
    return Network("input", network_input, tuple(layers), layers[-1].name, contract)


def frames(network: Network, samples: int, seed: int, steps: int | None = None) -> np.ndarray:
    """Random inputs on the contract's grid, (B, *input_shape) or with ``steps`` in front."""
    contract = network.contract
    front = (samples,) if steps is None else (steps, samples)
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, contract.input_levels + 1, (*front, *network.input_shape))
    return contract.frames(levels * (rng.random(levels.shape) < 0.7))
