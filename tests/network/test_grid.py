"""The grid: snapped sums are exact in any order, and one grid step finer would not be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, Grid
from snnpipe.network.grid import certificate, exact_sums, snap
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Scale,
    Synapse,
)
from snnpipe.network.neurons import LI, LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record


def _one(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def float_network(seed: int = 0, scale: float = 1 / 256) -> Network:
    """A small convolutional network with weights off every grid."""
    rng = np.random.default_rng(seed)
    conv1 = Conv("conv1", rng.normal(0, 1, (4, 1, 3, 3)).astype(np.float32), None, (2, 1), (1, 0))
    bias = rng.normal(0, 0.3, 6).astype(np.float32)
    conv2 = Conv("conv2", rng.normal(0, 0.3, (6, 2, 3, 2)).astype(np.float32), bias, groups=2)
    fc = Dense("fc", rng.normal(0, 0.2, (3, 6 * 2 * 5)).astype(np.float32), _one(0.3) * np.ones(3))
    neuron = LIF(_one(0.25), _one(1.0))
    layers = (
        Layer("lif1", neuron, (4, 4, 6), (Synapse("input", (conv1,)),)),
        Layer("lif2", neuron, (6, 2, 5), (Synapse("lif1", (conv2,)),)),
        Layer("readout", Sum(), (3,), (Synapse("lif2", (Flatten("flat"), fc)),)),
    )
    contract = Contract(steps=3, input_scale=scale, input_levels=255)
    return Network("input", (1, 8, 8), layers, "readout", contract)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(0, 1000))
def test_snapped_currents_are_equal_in_any_order_of_summation(seed: int) -> None:
    network = snap(float_network(seed))
    assert exact_sums(network)
    rng = np.random.default_rng(seed)
    spikes = (rng.random(6 * 2 * 5) < 0.4).astype(np.float32)
    fc = network.layer("readout").synapses[0].operations[1]
    assert isinstance(fc, Dense)
    assert fc.bias is not None
    exact = fc.weight.astype(np.float64) @ spikes.astype(np.float64) + fc.bias
    for _ in range(3):
        order = rng.permutation(len(spikes))
        total = np.zeros(3, np.float32)
        for j in order:
            total = total + fc.weight[:, j] * spikes[j]
        assert ((total + fc.bias) == exact).all()


def test_float32_equals_float64_on_the_grid_but_not_off_it() -> None:
    off = float_network(1)
    on = snap(off)
    x = frames(on, 6, 3)
    for network, equal in ((on, True), (off, False)):
        narrow = simulate(network, x, 3, Record(currents=6))
        wide = simulate(network, x, 3, Record(currents=6), dtype=np.float64)
        same = all((narrow.currents[k] == wide.currents[k]).all() for k in narrow.currents)
        assert same is equal


@settings(max_examples=60, derandomize=True, deadline=None)
@given(networks())
def test_random_networks_snap_with_a_certificate_that_holds(network: Network) -> None:
    maps = [len(synapse.weighted) for layer in network.layers for synapse in layer.synapses]
    if max(maps) > 1:
        with pytest.raises(RequestError, match="without a neuron between") as caught:
            snap(network)
        assert caught.value.code == "E_GRID"
        return
    snapped = snap(network)
    assert exact_sums(snapped)
    assert [layer.layer for layer in certificate(snapped)] == [x.name for x in network.layers]
    x = frames(network, 3, 0)
    narrow = simulate(snapped, x, 6, Record(currents=3)).currents
    for name, exponent in snapped.contract.arithmetic.product_exponents.items():
        steps = np.ldexp(narrow[name].astype(np.float64), exponent)
        assert (steps == np.rint(steps)).all()
        assert (abs(steps) <= 2**24).all()


def test_the_largest_exponent_is_chosen() -> None:
    network = snap(float_network(2))
    arithmetic = network.contract.arithmetic
    assert isinstance(arithmetic, Grid)
    for layer in certificate(network):
        assert 22 < layer.bits <= 24, layer
        finer = replace(
            arithmetic,
            weight_exponents={
                **arithmetic.weight_exponents,
                layer.layer: layer.weight_exponent + 1,
            },
        )
        recomputed = certificate(network.with_contract(network.contract.with_arithmetic(finer)))
        problem = {c.layer: c.problem for c in recomputed}[layer.layer]
        assert "bits" in problem


def test_the_certificate_is_recomputed_from_the_weights() -> None:
    network = snap(float_network(3))
    layer = network.layer("lif2")
    conv = layer.synapses[0].operations[0]
    assert isinstance(conv, Conv)
    exponent = certificate(network)[1].weight_exponent
    weight = conv.weight.copy()
    weight[0, 0, 0, 0] += 2.0 ** -(exponent + 1)
    for broken, words in ((weight, "not a multiple"), (conv.weight * 4, "bits")):
        synapse = Synapse("lif1", (replace(conv, weight=broken),))
        layers = [replace(x, synapses=(synapse,)) if x is layer else x for x in network.layers]
        found = certificate(replace(network, layers=tuple(layers)))
        assert words in found[1].problem
        assert not found[0].problem


def test_fan_in_counts_borders() -> None:
    found = certificate(snap(float_network(0)))
    assert found[0].fan_in == (6, 9)
    assert found[1].fan_in == (12, 12)


def test_what_has_no_grid_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="power of two"):
        snap(float_network(0, scale=1 / 255))
    network = float_network(0)
    layer = network.layers[0]
    pool = AvgPool("pool", (3, 3), (1, 1))
    fed = replace(layer, synapses=(Synapse("input", (pool, *layer.synapses[0].operations)),))
    with pytest.raises(RequestError, match="'pool' averages over 3x3"):
        snap(replace(network, layers=(fed, *network.layers[1:])))


@pytest.mark.parametrize("exponent", [-5000, -256, 3, 256, 5000])
def test_exponents_that_do_not_fit_the_weights_certify_nothing(exponent: int) -> None:
    network = float_network()
    forged = {layer.name: exponent for layer in network.layers}
    contract = network.contract.with_arithmetic(Grid(forged, forged))
    assert not exact_sums(network.with_contract(contract))


def test_a_product_exponent_that_the_parts_do_not_give_is_a_problem() -> None:
    network = snap(float_network())
    arithmetic = network.contract.arithmetic
    assert isinstance(arithmetic, Grid)
    stated = {**arithmetic.product_exponents, "lif2": arithmetic.product_exponents["lif2"] + 1}
    edited = replace(arithmetic, product_exponents=stated)
    layers = certificate(network.with_contract(network.contract.with_arithmetic(edited)))
    assert ["product exponent" in layer.problem for layer in layers] == [False, True, False]


def membranes_inside() -> Network:
    """A leaky integrator that feeds a spiking layer."""
    fc = Dense("fc", np.float32([[0.3, -0.7]]))
    layers = (
        Layer("li", LI(_one(0.5)), (2,), (Synapse("input"),)),
        Layer("out", LIF(_one(0.5), _one(1)), (1,), (Synapse("li", (fc,)),)),
    )
    return Network("input", (2,), layers, "out", Contract(3))


def test_what_membranes_feed_has_no_grid() -> None:
    network = membranes_inside()
    forged = Grid({"li": 0, "out": 9}, {"li": 0, "out": 9})
    claimed = network.with_contract(network.contract.with_arithmetic(forged))
    for attempt in (lambda: snap(network), lambda: exact_sums(claimed)):
        with pytest.raises(RequestError, match="'out' is fed by the membranes of 'li'") as caught:
            attempt()
        assert caught.value.code == "E_GRID"


def test_a_scale_is_a_weight_and_one_operation_too_many_behind_another() -> None:
    scale, fc = Scale("s", np.float32([0.3, 0.7])), Dense("fc", np.float32([[0.3, -0.7]]))
    layers = (
        Layer("a", LIF(_one(0.5), _one(1)), (2,), (Synapse("input", (scale,)),)),
        Layer("b", LIF(_one(0.5), _one(1)), (2,), (Synapse("a", (Delay("d", 3), scale)),)),
    )
    network = snap(Network("input", (2,), layers, "b", Contract(3)))
    first, second = certificate(network)
    assert (first.weight_exponent, first.fan_in, first.problem) == (24, (1, 1), "")
    assert first.largest_weight == pytest.approx(0.7, abs=2**-24)
    assert (second.product_exponent, second.problem) == (24, "")
    two = Layer("a", Sum(), (1,), (Synapse("input", (scale, fc)),))
    with pytest.raises(RequestError, match="'s' and 'fc' follow each other") as caught:
        snap(Network("input", (2,), (two,), "a", Contract(3)))
    assert caught.value.code == "E_GRID"


def test_a_sum_in_a_loop_has_its_grid_before_the_layer_it_feeds() -> None:
    """What comes back is a multiple of the sum's grid: the product's grid is finer by as much."""
    sum_weights = Dense("w", np.float32([[2**-3, 5 * 2**-5], [0, 1]]))
    back = Dense("x", np.float32([[0.75, 0.5], [0.25, 1]]))
    layers = (
        Layer("a", LIF(_one(0.9), _one(1)), (2,), (Synapse("input"), Synapse("s", (back,)))),
        Layer("s", Sum(), (2,), (Synapse("a", (sum_weights,)),)),
    )
    network = snap(Network("input", (2,), layers, "s", Contract(3)))
    first, second = certificate(network)
    assert (first.layer, second.layer) == ("a", "s")
    assert first.product_exponent == first.weight_exponent + second.product_exponent
    assert exact_sums(network)
