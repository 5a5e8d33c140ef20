"""The form a chip's synapses need: one map from every source, and the very same spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import dyadic, frames, networks
from snnpipe.errors import RequestError
from snnpipe.export.linear_maps import NotOneMapError, one_map
from snnpipe.export.loihi_form import loihi_form
from snnpipe.network.check import check
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
    SumPool,
    Synapse,
)
from snnpipe.network.linear import apply
from snnpipe.network.neurons import LI, LIF, CubaLI, Sum
from snnpipe.network.simulate import simulate


def conv(rng: np.random.Generator, name: str, *shape: int, bias: bool = False, **how: Any) -> Conv:
    return Conv(name, dyadic(rng, shape), dyadic(rng, shape[:1]) if bias else None, **how)


CHAINS: dict[str, Sequence[Operation]] = {
    "nothing": (),
    "pool": (SumPool("p", (3, 2), (2, 3), (1, 0)),),
    "average, conv": (
        AvgPool("p", (2, 2), (2, 1)),
        conv(np.random.default_rng(1), "c", 6, 2, 3, 2, stride=(2, 1), groups=2, bias=True),
    ),
    "average, padded conv": (
        AvgPool("p", (2, 2), (2, 2)),
        conv(np.random.default_rng(2), "c", 6, 4, 3, 3, padding=(1, 1), bias=True),
    ),
    "padded pool, dilated conv": (
        SumPool("p", (2, 2), (1, 1), (1, 1)),
        conv(np.random.default_rng(3), "c", 2, 4, 2, 2, dilation=(2, 1)),
    ),
    "conv, pool": (
        conv(np.random.default_rng(4), "c", 6, 2, 3, 2, padding=(1, 0), groups=2, bias=True),
        AvgPool("p", (2, 2), (2, 2)),
    ),
    "conv, conv": (
        conv(np.random.default_rng(5), "a", 6, 4, 3, 2, stride=(2, 1), padding=(2, 1), bias=True),
        conv(np.random.default_rng(6), "b", 4, 3, 2, 2, stride=(1, 2), groups=2, bias=True),
    ),
    "scale, conv": (
        Scale("s", dyadic(np.random.default_rng(7), (4, 1, 1))),
        conv(np.random.default_rng(8), "c", 2, 4, 3, 3, padding=(2, 2)),
    ),
    "pool, flatten": (SumPool("p", (2, 2), (2, 2)), Flatten("f")),
    "average, flatten, dense, scale": (
        AvgPool("p", (2, 2), (2, 2), (1, 0)),
        Flatten("f"),
        Dense("d", dyadic(np.random.default_rng(9), (5, 80)), np.ones((5,), np.float32)),
        Scale("s", dyadic(np.random.default_rng(10), (5,))),
    ),
    "conv, scale of neurons, flatten, dense": (
        conv(np.random.default_rng(11), "c", 2, 2, 3, 2, stride=(2, 1), dilation=(1, 2), groups=2,
             bias=True),
        Scale("s", dyadic(np.random.default_rng(12), (2, 3, 6))),
        Flatten("f"),
        Dense("d", dyadic(np.random.default_rng(13), (3, 36)), None),
    ),
}  # fmt: skip
SHAPE = (4, 8, 8)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_becomes_one_map_with_the_same_values(name: str) -> None:
    chain = CHAINS[name]
    made = one_map(chain, SHAPE, "fresh")
    kinds = [type(op) for op in made]
    assert kinds in ([Conv], [Conv, Flatten], [Dense], [Flatten, Dense])
    rng = np.random.default_rng(20)
    x = rng.integers(-3, 4, (5, *SHAPE)).astype(np.float32)
    expected, found = x, x
    for op in chain:
        expected = apply(op, expected)
    for op in made:
        found = apply(op, found)
    assert np.array_equal(expected, found)
    assert np.any(expected)
    assert {op.name for op in made} <= {op.name for op in chain} | {"fresh"}


def test_what_one_map_leaves_alone() -> None:
    chain = (Flatten("f"), Dense("d", np.ones((2, 256), np.float32)))
    assert all(a is b for a, b in zip(chain, one_map(chain, SHAPE, "x"), strict=True))


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (
            (
                SumPool("p", (3, 3), (2, 2)),
                conv(np.random.default_rng(0), "c", 4, 4, 3, 3, padding=(1, 1)),
            ),
            "'c' pads what 'p' gives",
        ),
        (
            (conv(np.random.default_rng(0), "a", 4, 4, 1, 1, bias=True),
             conv(np.random.default_rng(0), "b", 4, 4, 3, 3, padding=(1, 1))),
            "'b' pads what 'a' gives",
        ),
        ((Scale("s", dyadic(np.random.default_rng(0), (4, 8, 8))),), "'s' scales neurons"),
        ((Flatten("f", 0, 1),), "ends in shape"),
    ],
)  # fmt: skip
def test_what_is_not_one_map(chain: Sequence[Operation], words: str) -> None:
    with pytest.raises(NotOneMapError, match=words):
        one_map(chain, SHAPE, "x")


@settings(max_examples=150, derandomize=True, deadline=None)
@given(networks(without=(Conv1d,)), st.integers(0, 99))
def test_the_form_runs_the_same_spikes(network: Network, seed: int) -> None:
    network = replace(network, contract=replace(network.contract, steps=4))
    try:
        form = loihi_form(network, host=False)
    except RequestError as error:
        assume("'lava' cannot hold layer" not in error.message)
        raise
    check(form, "float")
    for layer in form.layers:
        assert not isinstance(layer.neuron, Sum) or layer.name == form.output
        for synapse in layer.synapses:
            kinds = [type(op) for op in synapse.operations if not isinstance(op, Delay)]
            assert kinds in ([Conv], [Conv, Flatten], [Dense], [Flatten, Dense])
    levels = (frames(network, 3, seed) * 16).astype(np.int64)
    a = simulate(network, network.contract.frames(levels), 4)
    b = simulate(form, form.contract.frames(levels), 4)
    assert a.spikes.keys() == b.spikes.keys()
    for name, bits in a.spikes.items():
        assert np.array_equal(bits, b.spikes[name]), name
    if not isinstance(network.layer(network.output).neuron, LI | CubaLI):
        assert np.array_equal(a.outputs, b.outputs)


def summed(waits: bool, bias: bool) -> Network:
    """One sum of two populations that the next layer reads, in the same step or late."""
    rng = np.random.default_rng(3)

    def dense(name: str, out: int, into: int) -> Dense:
        return Dense(name, dyadic(rng, (out, into)), dyadic(rng, (out,)) if bias else None)

    lif = LIF(np.float32(0.5) * np.ones(()), np.ones((), np.float32))
    a = Layer("a", lif, (6,), (Synapse("input", (dense("wa", 6, 4),)),))
    b = Layer("b", lif, (5,), (Synapse("a", (dense("wb", 5, 6),)),))
    both = (Synapse("a", (dense("sa", 3, 6),)), Synapse("b", (dense("sb", 3, 5),)))
    total = Layer("s", Sum(), (3,), both)
    fed = (Synapse("s", (dense("wc", 2, 3),)), Synapse("a", (dense("ac", 2, 6),)))
    c = Layer("c", lif, (2,), fed)
    layers = (a, c, b, total) if waits else (a, b, total, c)
    return Network("input", (4,), layers, "c", Contract(6, input_scale=1 / 16, input_levels=16))


@pytest.mark.parametrize("waits", [False, True])
def test_a_late_sum_stays_late(waits: bool) -> None:
    network = summed(waits, bias=False)
    form = loihi_form(network, host=False)
    sources = [synapse.source for synapse in form.layer("c").synapses]
    assert sources == ["a", "b", "a"]
    delays = [op.steps for _, _, op in form.operations() if isinstance(op, Delay)]
    assert delays == ([1] if waits else [])  # from b the order itself brings the step
    levels = np.random.default_rng(0).integers(0, 17, (6, 20, 4))
    a = simulate(network, network.contract.frames(levels), 6)
    b = simulate(form, form.contract.frames(levels), 6)
    assert np.array_equal(a.outputs, b.outputs)
    assert a.outputs.any()


def test_a_bias_cannot_wait() -> None:
    with pytest.raises(RequestError, match=r"layer 'c'.*'s' comes a step late"):
        loihi_form(summed(waits=True, bias=True), host=False)
    loihi_form(summed(waits=False, bias=True), host=False)
    network = summed(waits=False, bias=True)
    delayed = (*network.layer("b").synapses[0].operations, Delay("d", 2))
    layers = [
        replace(x, synapses=(Synapse("a", delayed),)) if x.name == "b" else x
        for x in network.layers
    ]
    with pytest.raises(RequestError, match=r"layer 'b'.*delay 'd' stands behind a bias"):
        loihi_form(replace(network, layers=tuple(layers)), host=False)


def test_the_host_keeps_its_own_chain() -> None:
    network = summed(waits=False, bias=False)
    chain = (
        Scale("half", np.full((4,), 0.5, np.float32)),
        *network.layers[0].synapses[0].operations,
    )
    first = replace(network.layers[0], synapses=(Synapse("input", chain),))
    network = replace(network, layers=(first, *network.layers[1:]))
    kept = loihi_form(network, host=True)
    found = kept.layers[0].synapses[0].operations
    assert [a.name for a in found] == [b.name for b in chain]
    assert [type(a) for a in found] == [Scale, Dense]
    assert kept.contract.input_scale == network.contract.input_scale
    whole = loihi_form(network, host=False)
    (made,) = whole.layers[0].synapses[0].operations
    assert isinstance(made, Dense)
    assert whole.contract.input_scale == 1
    dense = chain[1]
    assert isinstance(dense, Dense)
    assert np.array_equal(made.weight, dense.weight / 32)
