"""One hypothesis generator of random networks and inputs for every room's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from snnpipe.network.contract import Contract
from snnpipe.network.layers import (
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
from snnpipe.network.neurons import IF, LIF, Neuron, Sum
from snnpipe.network.shapes import shape_after


def dyadic(rng: np.random.Generator, shape: Shape, bits: int = 4) -> np.ndarray:
    """Random multiples of 2^-bits in [-1, 1]: sums of a few thousand are exact in float32."""
    return (rng.integers(-(2**bits), 2**bits + 1, shape) / 2**bits).astype(np.float32)


def _parameter(draw: Any, rng: np.random.Generator, shape: Shape, low: int, high: int) -> Any:
    """A multiple of 1/8 for all, per channel, or per neuron."""
    form = draw(st.sampled_from(["one", "channel", "neuron"]))
    size: Shape = () if form == "one" else shape
    if form == "channel":
        size = (shape[0], *([1] * (len(shape) - 1)))
    return (rng.integers(low, high + 1, size) / 8).astype(np.float32)


def _neuron(draw: Any, rng: np.random.Generator, shape: Shape, v_reset: bool) -> Neuron:
    threshold = _parameter(draw, rng, shape, 2, 10)
    rest = _parameter(draw, rng, shape, -2, 1) if v_reset else np.zeros((), np.float32)
    if draw(st.booleans()):
        return IF(threshold, rest)
    return LIF(_parameter(draw, rng, shape, 0, 7), threshold, rest)


def _operations(draw: Any, rng: np.random.Generator, shape: Shape, name: str) -> list[Operation]:
    """Pool (sometimes), then a convolution or a dense map behind a flatten."""
    chain: list[Operation] = []
    if len(shape) == 3 and min(shape[1:]) >= 2 and draw(st.integers(0, 3)) == 0:
        kind = draw(st.sampled_from([SumPool, AvgPool]))
        chain.append(kind(f"{name}.pool", (2, 2), (2, draw(st.integers(1, 2)))))
        shape = shape_after(chain[-1], shape)
    if len(shape) == 3 and draw(st.integers(0, 3)):
        groups = draw(st.sampled_from([g for g in (1, 2, shape[0]) if shape[0] % g == 0]))
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        padding = ((kernel[0] - 1) * dilation[0], draw(st.integers(0, 1)) + kernel[1] - 1)
        out = groups * draw(st.integers(1, 3))
        bias = dyadic(rng, (out,)) if draw(st.booleans()) else None
        weight = dyadic(rng, (out, shape[0] // groups, *kernel))
        stride = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
        conv = Conv(f"{name}.conv", weight, bias, stride, padding, dilation, groups)
        if (
            min(
                n + 2 * p - d * (k - 1)
                for n, p, d, k in zip(shape[1:], padding, dilation, kernel, strict=True)
            )
            >= 1
        ):
            return [*chain, conv]
    if len(shape) > 1:
        chain.append(Flatten(f"{name}.flatten"))
    out = draw(st.integers(1, 70))
    bias = dyadic(rng, (out,)) if draw(st.booleans()) else None
    return [*chain, Dense(f"{name}.dense", dyadic(rng, (out, int(np.prod(shape)))), bias)]


@st.composite
def networks(
    draw: Any, v_reset: bool = True, branches: bool = True, max_layers: int = 4
) -> Network:
    """A random acyclic float32 network whose weights lie on a coarse dyadic grid.

    Every layer is fed by the layer before it; with ``branches`` some have a second synapse (an
    identity from an earlier population of the same shape, or a `Sum` that joins two). The read-out
    is a `Sum` or the last spiking layer. ``v_reset`` allows resting values other than zero.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape: Shape = (draw(st.integers(1, 3)), draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    network_input, source = shape, "input"
    layers: list[Layer] = []
    for index in range(draw(st.integers(1, max_layers))):
        name = f"layer{index}"
        operations = _operations(draw, rng, shape, name)
        for operation in operations:
            shape = shape_after(operation, shape)
        synapses = [Synapse(source, tuple(operations))]
        same = [layer.name for layer in layers if layer.shape == shape]
        if branches and same and draw(st.booleans()):
            synapses.append(Synapse(draw(st.sampled_from(same))))
        layers.append(Layer(name, _neuron(draw, rng, shape, v_reset), shape, tuple(synapses)))
        source = name
        if branches and same and draw(st.booleans()):
            joined = (Synapse(name), Synapse(draw(st.sampled_from(same))))
            layers.append(Layer(f"{name}.sum", Sum(), shape, joined))
            source = f"{name}.sum"
    if draw(st.booleans()):
        flat = (Flatten("fc.flatten"),) if len(shape) > 1 else ()
        weight = dyadic(rng, (draw(st.integers(1, 10)), int(np.prod(shape))))
        dense = Dense("fc", weight, dyadic(rng, (weight.shape[0],)))
        synapse = Synapse(source, (*flat, dense))
        layers.append(Layer("readout", Sum(), (weight.shape[0],), (synapse,)))
    contract = Contract(
        steps=draw(st.integers(1, 5)),
        compare=draw(st.sampled_from(["gt", "ge"])),
        reset=draw(st.sampled_from(["value", "subtract"])),
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
