"""The hash of what a network computes: blind to names and order, and to nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import networks
from snnpipe.network.contract import Contract
from snnpipe.network.graph import network_sha256
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Delay,
    Flatten,
    Layer,
    Network,
    Scale,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LIF, Sum, Threshold, parameters
from snnpipe.network.shapes import shape_after


def _renamed(network: Network, name: Any) -> Network:
    """Every part under another name; synapses and layers keep their order."""

    def synapse(old: Synapse) -> Synapse:
        operations = tuple(replace(op, name=name(op.name)) for op in old.operations)
        return Synapse(name(old.source), operations)

    layers = tuple(
        replace(layer, name=name(layer.name), synapses=tuple(map(synapse, layer.synapses)))
        for layer in network.layers
    )
    ends = {"input": name(network.input), "output": name(network.output)}
    return replace(network, layers=layers, output_port=name(network.output_port), **ends)


def _shuffled(network: Network, rng: np.random.Generator) -> Network:
    """Layers in another order of a step in which every late synapse stays late and every other
    does not become it; synapses in any order."""
    left = list(network.layers)
    placed: list[Layer] = []
    while left:
        ready = [
            layer
            for layer in left
            if {s.source for s in layer.synapses if not network.late(layer, s)}
            <= {network.input, *(p.name for p in placed)}
            and not any(
                layer.name == s.source and layer is not other and network.late(other, s)
                for other in left
                for s in other.synapses
            )
        ]
        layer = ready[rng.integers(len(ready))]
        left.remove(layer)
        order = rng.permutation(len(layer.synapses))
        placed.append(replace(layer, synapses=tuple(layer.synapses[i] for i in order)))
    return replace(network, layers=tuple(placed))


@given(networks(graded=True), st.integers(0, 2**32 - 1))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_names_and_orders_do_not_count(network: Network, seed: int) -> None:
    first = network_sha256(network)
    assert network_sha256(_renamed(network, lambda text: f"z{text[::-1]}")) == first
    assert network_sha256(_shuffled(network, np.random.default_rng(seed))) == first
    contract = Contract(9, dt=3e-3, compare="ge")
    assert network_sha256(network.with_contract(contract)) == first


def _arrays(network: Network) -> Iterator[Network]:
    """The network with one element of one array changed in its last bit, each array in turn."""

    def nudged(part: Any) -> Iterator[Any]:
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray | np.floating):
                other = np.array(value)
                other.flat[-1] = np.nextafter(other.flat[-1], np.float32(np.inf))
                yield replace(part, **{field.name: other})

    for layer in network.layers:
        for neuron in nudged(layer.neuron):
            yield _with(network, replace(layer, neuron=neuron))
        for n, synapse in enumerate(layer.synapses):
            for m, operation in enumerate(synapse.operations):
                for other in nudged(operation):
                    chain = (*synapse.operations[:m], other, *synapse.operations[m + 1 :])
                    changed = replace(synapse, operations=chain)
                    synapses = (*layer.synapses[:n], changed, *layer.synapses[n + 1 :])
                    yield _with(network, replace(layer, synapses=synapses))


def _with(network: Network, layer: Layer) -> Network:
    layers = tuple(layer if old.name == layer.name else old for old in network.layers)
    return replace(network, layers=layers)


@given(networks(graded=True))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_every_bit_of_every_array_counts(network: Network) -> None:
    changed = [network_sha256(other) for other in _arrays(network)]
    count = sum(len(parameters(layer.neuron)) for layer in network.layers)
    assert len(changed) >= count
    assert network_sha256(network) not in changed
    assert len(set(changed)) == len(changed)


def _single(*operations: Any, neuron: Any = None) -> Network:
    """input (4, 6, 5) through the operations into one layer."""
    shape: tuple[int, ...] = (4, 6, 5)
    for operation in operations:
        shape = shape_after(operation, shape)
    layer = Layer("a", neuron or IF(np.float32(1)), shape, (Synapse("input", operations),))
    return Network("input", (4, 6, 5), (layer,), "a", Contract(1))


WEIGHT = np.arange(4 * 2 * 3 * 3, dtype=np.float32).reshape(4, 2, 3, 3)
CONV = Conv("c", WEIGHT, None, (1, 1), (2, 2), (1, 1), 2)
KINDS = [
    *(replace(CONV, stride=stride) for stride in [(1, 1), (2, 1), (1, 2)]),
    *(replace(CONV, padding=padding) for padding in [(2, 1), (1, 2)]),
    *(replace(CONV, dilation=dilation) for dilation in [(2, 1), (1, 2)]),
    replace(CONV, weight=np.concatenate([WEIGHT, WEIGHT], axis=1), groups=1),
    replace(CONV, weight=WEIGHT.transpose(0, 1, 3, 2)),
    replace(CONV, bias=np.ones(4, np.float32)),
    *(kind("p", (2, 2), (2, 2)) for kind in (SumPool, AvgPool)),
    SumPool("p", (2, 1), (2, 2)),
    SumPool("p", (2, 2), (1, 2)),
    SumPool("p", (2, 2), (2, 2), (1, 1)),
    *(Flatten("f", start, end) for start, end in [(0, 1), (1, 2), (0, 2)]),
    *(Scale("s", np.float32(factor)) for factor in (1.0, 0.5)),
    *(Delay("d", steps) for steps in (0, 1, 2)),
]


def test_every_number_of_an_operation_counts() -> None:
    hashes = [network_sha256(_single(operation)) for operation in KINDS]
    hashes.append(network_sha256(_single()))
    scaled, delayed = Scale("s", np.float32(0.5)), Delay("d", 2)
    hashes.append(network_sha256(_single(scaled, delayed)))
    hashes.append(network_sha256(_single(delayed, scaled)))
    hashes.append(network_sha256(_single(neuron=Threshold(np.float32(1)))))
    hashes.append(network_sha256(_single(neuron=Sum())))
    hashes.append(network_sha256(_single(neuron=LIF(np.float32(0), np.float32(1)))))
    assert len(set(hashes)) == len(hashes) == len(KINDS) + 6


def test_every_edge_and_its_lateness_count() -> None:
    """Layers that are equal in all but what feeds them."""
    neuron = IF(np.float32(1))

    def hashed(order: str, output: str = "c", **fed: str) -> str:
        layers = tuple(
            Layer(n, neuron, (4, 6, 5), tuple(map(Synapse, fed[n].split()))) for n in order
        )
        return network_sha256(Network("input", (4, 6, 5), layers, output, Contract(1)))

    base = {"a": "input", "b": "a", "c": "b"}
    assert hashed("abc", **base) == hashed("xyz", "z", x="input", y="x", z="y")
    different = [
        hashed("abc", **base),
        hashed("abc", "b", **base),
        hashed("abc", **{**base, "c": "b a"}),
        hashed("abc", **{**base, "c": "b input"}),
        hashed("abc", **{**base, "a": "input a"}),
        hashed("abc", **{**base, "a": "input b"}),
        hashed("abc", **{**base, "a": "input c"}),
        hashed("abc", **{**base, "b": "a b"}),
        hashed("abc", **{**base, "b": "a c"}),
        hashed("abc", **{**base, "b": "a input"}),
        hashed("abc", **{**base, "b": "a a"}),
        hashed("bca", "c", a="input c", b="input a", c="input b"),
        hashed("abc", "c", a="input c", b="input a", c="input b"),
        hashed("cab", "c", a="input c", b="input a", c="input b"),
        hashed("ab", "b", a="input", b="a"),
    ]
    assert len(set(different)) == len(different)


def test_the_shape_of_the_input_and_of_a_sum_count() -> None:
    def hashed(*shape: int) -> str:
        layer = Layer("a", Sum(), shape, (Synapse("input"),))
        return network_sha256(Network("input", shape, (layer,), "a", Contract(1)))

    assert len({hashed(4), hashed(5), hashed(2, 2), hashed(4, 1)}) == 4


def test_parameters_count_at_full_shape() -> None:
    """One value for all and the same value for each are one network."""
    one = _single(neuron=IF(np.float32(0.5)))
    each = _single(neuron=IF(np.full((4, 6, 5), 0.5, np.float32)))
    assert network_sha256(one) == network_sha256(each)
