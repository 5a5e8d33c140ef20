"""Small exact networks that other frameworks read, and the way through their importers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from snnpipe.export.targets.nir import PLUGIN
from snnpipe.network.contract import Contract, Grid
from snnpipe.network.grid import certificate
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Shape,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LIF, CubaLIF, Neuron, Spiking, Sum
from snnpipe.network.shapes import shape_after

HERE = Path(__file__).parent
SAMPLES = 16
PORTABLE, OLD = {"profile": "portable", "compat": "1.0.8"}, {"profile": "full", "compat": "1.0.4"}
ENVIRONMENTS = {
    "snntorch": "SNNPIPE_FOREIGN_A",
    "spikingjelly": "SNNPIPE_FOREIGN_A",
    "sinabs": "SNNPIPE_FOREIGN_B",
}
"""Which environment variable names a python that has a framework."""


def python_of(framework: str) -> str | None:
    """The python that has a framework; None when the environment names none."""
    return os.environ.get(ENVIRONMENTS[framework])


def on_grid(network: Network, places: int) -> Network:
    """The network with its certificate: weights and biases have so many binary places."""
    weights = {layer.name: places for layer in network.layers}
    products: dict[str, int] = {}
    for _ in range(2):  # the first round says which products come of the weights
        grid = network.with_contract(network.contract.with_arithmetic(Grid(weights, products)))
        products = {line.layer: line.product_exponent for line in certificate(grid)}
    return grid


def _chain(shape: Shape, parts: Iterable[Operation | Neuron], contract: Contract) -> Network:
    """One layer behind the other: every neuron ends one."""
    source, entry, operations, layers = "input", shape, [], []
    for part in parts:
        if isinstance(part, Operation):
            operations.append(part)
            shape = shape_after(part, shape)
        else:
            name = f"layer{len(layers)}"
            layers.append(Layer(name, part, shape, (Synapse(source, tuple(operations)),)))
            source, operations = name, []
    return Network("input", entry, tuple(layers), source, contract)


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.integers(-4, 7, shape) / 8).astype(np.float32)


def _small(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """None below 0, so few and small that no neuron fires twice in a step."""
    return (rng.integers(0, 3, shape) / 16).astype(np.float32)


def _value(number: float) -> np.ndarray:
    return np.asarray(number, np.float32)


def _branches(rng: np.random.Generator, contract: Contract) -> Network:
    """A residual add, and a Sum that feeds the read-out."""
    w = _weights
    first = Synapse("input", (Conv("a.conv", w(rng, 2, 2, 3, 3), None, (1, 1), (1, 1)),))
    again = Synapse("a", (Conv("b.conv", w(rng, 2, 2, 3, 3), w(rng, 2), (1, 1), (2, 2), (2, 2)),))
    out = (AvgPool("fc.pool", (2, 2), (2, 2)), Flatten("fc.flatten"), Dense("fc", w(rng, 3, 18)))
    layers = (
        Layer("a", LIF(_value(0.5), _value(1)), (2, 6, 6), (first,)),
        Layer("b", LIF(_value(0.75), _value(1)), (2, 6, 6), (again, Synapse("a"))),
        Layer("joined", Sum(), (2, 6, 6), (Synapse("a"), Synapse("b"))),
        Layer("readout", Sum(), (3,), (Synapse("joined", out),)),
    )
    return Network("input", (2, 6, 6), layers, "readout", contract)


def portable_networks() -> dict[str, Network]:
    """What the portable profile holds, with membranes that meet their thresholds."""
    rng = np.random.default_rng(4)
    w, v = _weights, _value
    contract = Contract(6, input_scale=1 / 4, input_levels=4)
    at = replace(contract, compare="ge")
    dense = [
        Dense("fc0", w(rng, 12, 9), w(rng, 12)),
        LIF(v(0.5), v(1)),
        Dense("fc1", w(rng, 10, 12)),
        CubaLIF(v(0.5), v(0.25), v(1.5)),
        Dense("fc2", w(rng, 8, 10)),
        LIF(v(0), v(0.5)),
    ]
    conv = [
        Conv("conv", w(rng, 4, 2, 3, 3), w(rng, 4), (2, 1), (1, 2)),
        LIF(v(0.25), v(1)),
        SumPool("pool", (2, 2), (2, 2)),
        Flatten("flatten"),
        Dense("fc", w(rng, 10, 40)),
        LIF(v(0.875), v(2)),
    ]
    conv1d = [Conv1d("conv", w(rng, 3, 2, 3), w(rng, 3), 2, 1), LIF(v(0.625), v(1))]
    found = {
        "dense": _chain((9,), dense, contract),
        "dense-ge": _chain((9,), dense, at),
        "conv": _chain((2, 8, 8), conv, contract),
        "conv1d": _chain((2, 9), conv1d, contract),
        "branches": _branches(rng, contract),
    }
    return {name: on_grid(network, 3) for name, network in found.items()}


def sinabs_networks() -> dict[str, Network]:
    """What sinabs reads with equal spikes."""
    rng = np.random.default_rng(5)
    contract = Contract(12, compare="ge", reset="subtract", input_scale=1 / 4, input_levels=4)
    dense = [
        Dense("fc0", _small(rng, 12, 9)),
        IF((1 + np.arange(12) % 2).astype(np.float32)),
        Dense("fc1", _small(rng, 10, 12), _small(rng, 10)),
        IF(_value(2)),
        Dense("fc2", _weights(rng, 5, 10)),
        Sum(),
    ]
    conv = [
        Conv("conv", _small(rng, 4, 2, 3, 3), None, (2, 1), (1, 2)),
        IF(_value(1.5)),
        SumPool("pool", (2, 2), (2, 2)),
        Flatten("flatten"),
        Dense("fc", _small(rng, 6, 40) / 8),
        IF(_value(1.5)),
    ]
    found = {
        "old-dense": _chain((9,), dense, contract),
        "old-conv": _chain((2, 8, 8), conv, contract),
    }
    return {name: on_grid(network, 7) for name, network in found.items()}


def _prefixes(network: Network) -> dict[str, Network]:
    """The network up to every layer that spikes, and the whole: importers show outputs only."""
    ends = [
        n
        for n, layer in enumerate(network.layers)
        if isinstance(layer.neuron, Spiking) or layer.name == network.output
    ]
    return {
        network.layers[n].name: replace(
            network, layers=network.layers[: n + 1], output=network.layers[n].name
        )
        for n in ends
    }


def cases() -> dict[str, tuple[Network, Mapping[str, str], tuple[str, ...]]]:
    """By name: a network, the options it is written with, and who reads it."""
    kinds = (
        (portable_networks(), 3, PORTABLE, ("snntorch", "spikingjelly")),
        (sinabs_networks(), 7, OLD, ("sinabs",)),
    )
    return {
        f"{name}.{end}": (on_grid(network, places), options, readers)
        for networks, places, options, readers in kinds
        for name, whole in networks.items()
        for end, network in _prefixes(whole).items()
    }


def inputs(network: Network) -> np.ndarray:
    """Levels of the contract (T, B, *input_shape), float32."""
    contract = network.contract
    rng = np.random.default_rng(6)
    shape = (contract.steps, SAMPLES, *network.input_shape)
    return contract.frames(rng.integers(0, contract.input_levels + 1, shape))


def write(folder: Path) -> None:
    """Every case as a file and its inputs, as `run_importers.py` takes them."""
    for name, (network, options, readers) in cases().items():
        part = folder / name
        part.mkdir()
        PLUGIN.write(network, part, options)
        np.save(part / "inputs.npy", inputs(network))
        (part / "readers").write_text("\n".join(readers))


def read_by(framework: str, folder: Path) -> dict[str, np.ndarray]:
    """The outputs (T, B, K) of what a framework makes of the cases that are for it."""
    python = python_of(framework)
    assert python is not None
    command = [python, HERE / "run_importers.py", framework, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path.parent.name: np.load(path) for path in folder.glob(f"*/{framework}.npy")}
    return {name: values.reshape(*values.shape[:2], -1) for name, values in found.items()}
