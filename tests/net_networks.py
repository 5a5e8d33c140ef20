"""Random integer networks that a `.net` file can say: chains, delays, loops, convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv, Delay, Dense, Flatten, Layer, Network, Operation, Synapse
from snnpipe.network.neurons import IF, LIF, CubaLIF, Neuron, Sum
from snnpipe.network.shapes import shape_after


def _f4(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _neuron(rng: np.random.Generator) -> Neuron:
    threshold = _f4(rng.integers(10, 60))
    decay = _f4(rng.integers(0, 4096) / 4096)
    kind = rng.integers(3)
    if kind == 0:
        return IF(threshold)
    if kind == 1:
        return LIF(decay, threshold)
    return CubaLIF(_f4(rng.integers(1, 4096) / 4096), decay, threshold)


def _weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return _f4(rng.integers(-15, 25, shape) * 2)


def _delayed(rng: np.random.Generator, name: str, out: int, inputs: int, flat: Any) -> Any:
    """Synapses of one dense map whose weights have three delays."""
    weight = _weight(rng, out, inputs)
    delays = rng.choice([0, 2, 5], (out, 1) if rng.integers(2) else (out, inputs))
    for delay in np.unique(delays).tolist():
        tag = f"{name}.{delay}"
        waiting: list[Operation] = [Delay(f"{tag}.wait", delay)] if delay else []
        part = Dense(f"{tag}.w", np.where(delays == delay, weight, np.float32(0)))
        yield (*waiting, *flat(tag), part)


def net_network(seed: int) -> Network:
    """One of them; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    image = bool(rng.integers(2))
    shape: tuple[int, ...] = (2, 6, 5) if image else (7,)
    layers: list[Layer] = []
    exponents: dict[str, int] = {}
    source, given = "input", shape
    if image:
        weight = _weight(rng, 4, 2 // (1 + seed % 2), 3, 2)
        conv = Conv("conv.w", weight, _f4(rng.integers(-20, 20, 4)), (2, 1), (1, 0), (1, 2),
                    1 + seed % 2)  # fmt: skip
        given = shape_after(conv, shape)
        layers.append(Layer("conv", _neuron(rng), given, (Synapse("input", (conv,)),)))
        exponents["conv"], source = 6, "conv"
    for index in range(rng.integers(1, 3)):
        name, out = f"dense{index}", int(rng.integers(3, 6))
        inputs, flatten = int(np.prod(given)), len(given) > 1

        def flat(tag: str, flatten: bool = flatten) -> list[Operation]:
            return [Flatten(f"{tag}.flat")] if flatten else []

        if rng.integers(2):
            chains = list(_delayed(rng, name, out, inputs, flat))
        else:
            chains = [(*flat(name), Dense(f"{name}.w", _weight(rng, out, inputs),
                                          _f4(rng.integers(-9, 30, out))))]  # fmt: skip
            exponents[name] = 6
        synapses = [Synapse(source, chain) for chain in chains]
        if len(synapses) == 1 and rng.integers(2):
            loop = Dense(f"{name}.loop", _weight(rng, out, out))
            synapses.append(Synapse(name, (loop,)))
        layers.append(Layer(name, _neuron(rng), (out,), tuple(synapses)))
        source, given = name, (out,)
    if rng.integers(2):
        out = Dense("out.w", _weight(rng, 3, given[0]), _f4([1, -2, 4]))
        layers.append(Layer("out", Sum(), (3,), (Synapse(source, (out,)),)))
        exponents["out"], source = 6, "out"
    contract = Contract(12, input_coding="events", arithmetic=Integer(8, exponents))
    network = Network("input", shape, tuple(layers), source, contract)
    check(network, "integer", overflow="count")
    return network


def net_inputs(network: Network, seed: int) -> np.ndarray:
    """Spikes (2, T, *shape), as they are stored."""
    rng = np.random.default_rng(seed)
    return (rng.random((2, *network.stored_shape)) < 0.5).astype(np.int64)
