"""Bounds of sums: equal to brute force, never left by a run, crossed over by negative weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import integer_networks
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.network.bounds import bias_sums, host_bias_bounds, sums_first, term_sums
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
    Conv,
    Conv1d,
    Delay,
    Dense,
    Layer,
    Network,
    Scale,
    SumPool,
    Synapse,
)
from snnpipe.network.linear import through
from snnpipe.network.neurons import IF, LI, CubaLIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record


def _if() -> IF:
    return IF(np.array(1.0, np.float32))


def _network(
    *layers: Layer, shape: tuple[int, ...] = (2,), contract: Contract | None = None
) -> Network:
    return Network("input", shape, layers, layers[-1].name, contract or Contract(2))


@given(networks(branches=False, max_layers=2, without=[Scale]))
@settings(max_examples=20, derandomize=True, deadline=None)
def test_sums_equal_those_of_single_inputs(network: Network) -> None:
    """One input of the weights at a time gives every term by itself, at real borders."""
    sums = term_sums(network)
    for layer in network.layers:
        (synapse,) = layer.synapses
        *before, weights = (op for op in synapse.operations if not isinstance(op, Delay))
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
@settings(max_examples=60, derandomize=True, deadline=None)
def test_no_run_leaves_the_bounds(network: Network, seed: int) -> None:
    x = frames(network, 8, seed)
    trace = simulate(network, x, 5, Record(currents=8), dtype=np.float64)
    arithmetic = network.contract.arithmetic
    integer = isinstance(arithmetic, Integer)
    sums = term_sums(network)
    for layer in network.layers:
        p, n = sums[layer.name]
        if isinstance(arithmetic, Integer) and layer.name in arithmetic.host_scale:
            exponent = arithmetic.bias_exponents[layer.name]
            p, n = host_bias_bounds((p, n), arithmetic.host_scale[layer.name], exponent)
        elif integer:
            kept = layer.neuron.synaptic_decay if isinstance(layer.neuron, CubaLIF) else 0
            p, n = p * 64 / (1 - kept), n * 64 / (1 - kept)
        currents = trace.currents[layer.name].reshape(5, 8, *layer.shape)
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
    p, n = host_bias_bounds((np.array([0.0, 0.5, 99.0]), np.array([1e9, 0.0, 0.25])), 10, 2)
    assert p.tolist() == [0, 81 << 2, 4095 << 2]  # 0.5*10*64/4 = 80, one above for rounding
    assert n.tolist() == [4096 << 2, 0, 41 << 2]


def test_scales_and_convolutions_over_one_axis_carry_bounds_by_their_signs() -> None:
    conv = Conv1d("c", np.float32([[[1, -2]]]), np.float32([0.5]))
    scale = Scale("s", np.float32([[3, -1]]))
    network = _network(Layer("a", Sum(), (1, 2), (Synapse("input", (conv, scale)),)), shape=(1, 3))
    assert [side.tolist() for side in term_sums(network)["a"]] == [[[4.5, 2]], [[6, 1.5]]]
    silent = bias_sums(network, network.layers[0])
    assert [side.tolist() for side in silent] == [[[1.5, 0]], [[0, 0.5]]]


def test_a_sum_in_a_loop_bounds_the_layer_before_it() -> None:
    """s lies in [-2, 1] whatever a does; late and delayed, times -3, it lies in [-3, 6] in a."""
    back = (Dense("w", np.float32([[-3]])), Delay("d", 2))
    layers = (
        Layer("a", _if(), (1,), (Synapse("input"), Synapse("s", back))),
        Layer("s", Sum(), (1,), (Synapse("a"), Synapse("a", (Scale("x", np.float32(-2)),)))),
    )
    sums = term_sums(_network(*layers, shape=(1,)))
    assert [side.tolist() for side in sums["s"]] == [[1], [2]]
    assert [side.tolist() for side in sums["a"]] == [[7], [3]]
    assert [layer.name for layer in sums_first(_network(*layers, shape=(1,)))] == ["s", "a"]


def test_sums_that_feed_each_other_have_no_bounds() -> None:
    delay = Delay("d", 1)
    layers = (
        Layer("s", Sum(), (2,), (Synapse("input"), Synapse("t", (delay,)))),
        Layer("t", Sum(), (2,), (Synapse("s"),)),
    )
    with pytest.raises(RequestError, match="'s' -> 't' -> 's' feed each other") as caught:
        term_sums(_network(*layers))
    assert caught.value.code == "E_GRID"


def test_what_a_membrane_feeds_has_no_bounds() -> None:
    layers = (
        Layer("m", LI(np.float32(0.5)), (2,), (Synapse("input"),)),
        Layer("b", _if(), (2,), (Synapse("m"),)),
    )
    assert term_sums(_network(layers[0]))["m"][0].tolist() == [1, 1]
    with pytest.raises(RequestError, match=r"'b' is fed by the membranes of 'm' \(LI\)") as caught:
        term_sums(_network(*layers))
    assert caught.value.code == "E_GRID"
