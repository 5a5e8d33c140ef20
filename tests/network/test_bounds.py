"""Bounds of sums: equal to brute force, never left by a run, crossed over by negative weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import integer_networks
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.network.bounds import bias_sums, host_bias, term_sums
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv, Dense, Layer, Network, SumPool, Synapse
from snnpipe.network.linear import through
from snnpipe.network.neurons import IF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record


def _if() -> IF:
    return IF(np.array(1.0, np.float32))


def _network(
    *layers: Layer, shape: tuple[int, ...] = (2,), contract: Contract | None = None
) -> Network:
    return Network("input", shape, layers, layers[-1].name, contract or Contract(2))


@given(networks(branches=False, max_layers=2))
@settings(max_examples=20, derandomize=True, deadline=None)
def test_sums_equal_those_of_single_inputs(network: Network) -> None:
    """One input of the weights at a time gives every term by itself, at real borders."""
    sums = term_sums(network)
    for layer in network.layers:
        (synapse,) = layer.synapses
        *before, weights = synapse.operations
        ones = np.ones((1, *network.shape_of(synapse.source)))  # the input has 16 levels of 1/16
        largest = through(Synapse("", tuple(before)), ones)
        one_by_one = np.diag(largest.ravel()).reshape(-1, *largest.shape[1:])
        last = Synapse("", (weights,))
        silent = through(last, np.zeros_like(largest))
        each = through(last, one_by_one) - silent
        positive = np.maximum(each, 0).sum(0) + np.maximum(silent[0], 0)
        negative = np.maximum(-each, 0).sum(0) + np.maximum(-silent[0], 0)
        assert np.array_equal(sums[layer.name][0], positive)
        assert np.array_equal(sums[layer.name][1], negative)


@given(st.one_of(networks(), integer_networks()), st.integers(0, 99))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_no_run_leaves_the_bounds(network: Network, seed: int) -> None:
    x = frames(network, 8, seed)
    trace = simulate(network, x, 3, Record(currents=8), dtype=np.float64)
    arithmetic = network.contract.arithmetic
    integer = isinstance(arithmetic, Integer)
    for layer in network.layers:
        p, n = term_sums(network)[layer.name]
        if isinstance(arithmetic, Integer) and layer.name in arithmetic.host_scale:
            p, n = host_bias((p, n), arithmetic.host_scale[layer.name], 3)
        elif integer:
            p, n = p * 64, n * 64
        currents = trace.currents[layer.name].reshape(3, 8, *layer.shape)
        assert (currents <= p).all()
        assert (currents >= -n).all()


def test_a_negative_source_crosses_over() -> None:
    """(3, -2) of [0, 1] inputs lies in [-2, 3]; times -5 in [-15, 10]; and +1 in [-15, 11]."""
    network = _network(
        Layer("s", Sum(), (1,), (Synapse("input", (Dense("a", np.float32([[3, -2]])),)),)),
        Layer(
            "t", _if(), (1,),
            (Synapse("s", (Dense("b", np.float32([[-5]]), np.float32([1])),)),),
        ),
    )  # fmt: skip
    sums = term_sums(network)
    assert [side.tolist() for side in sums["s"]] == [[3], [2]]
    assert [side.tolist() for side in sums["t"]] == [[11], [15]]
    assert [side.tolist() for side in bias_sums(network, network.layers[1])] == [[1], [0]]


def test_levels_borders_and_pools_count() -> None:
    conv = Conv("c", np.float32([[[[1, -1, 2]]]]), np.float32([-0.5]), padding=(0, 1))
    network = _network(
        Layer("a", _if(), (1, 1, 2), (Synapse("input", (SumPool("p", (1, 2), (1, 2)), conv)),)),
        shape=(1, 1, 4),
        contract=Contract(2, input_scale=0.5, input_levels=6),
    )
    positive, negative = term_sums(network)["a"]  # pooled inputs reach 6
    assert positive.ravel().tolist() == [12, 6]
    assert negative.ravel().tolist() == [6.5, 6.5]


def test_integer_sums_emit_membrane_units() -> None:
    network = _network(
        Layer("s", Sum(), (1,), (Synapse("input", (Dense("a", np.float32([[3, -2]])),)),)),
        Layer("t", _if(), (1,), (Synapse("s", (Dense("b", np.float32([[1]])),)),)),
        contract=Contract(2, arithmetic=Integer(8, {})),
    )
    assert [side.tolist() for side in term_sums(network)["t"]] == [[3 * 64], [2 * 64]]


def test_host_currents_are_clipped_to_a_mantissa() -> None:
    p, n = host_bias((np.array([0.0, 0.5, 99.0]), np.array([1e9, 0.0, 0.25])), 10, 2)
    assert p.tolist() == [0, 81 << 2, 4095 << 2]  # 0.5*10*64/4 = 80, one above for rounding
    assert n.tolist() == [4096 << 2, 0, 41 << 2]


def test_a_graded_source_that_comes_later_has_no_bounds() -> None:
    one = Layer("a", _if(), (2,), (Synapse("s"),))
    with pytest.raises(RequestError, match="layer 'a' is fed by 's'") as caught:
        term_sums(_network(one, Layer("s", Sum(), (2,), (Synapse("input"),))))
    assert caught.value.code == "E_LAYER"
    spiking = Layer("s", _if(), (2,), (Synapse("input"),))
    assert term_sums(_network(one, spiking))["a"][0].tolist() == [1, 1]
    assert replace(one, name="b").size == 2
