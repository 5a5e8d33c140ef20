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
from snnpipe.network.layers import AvgPool, Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF, Sum
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


@settings(max_examples=40, derandomize=True, deadline=None)
@given(networks())
def test_random_networks_snap_with_a_certificate_that_holds(network: Network) -> None:
    try:
        snapped = snap(network)
    except RequestError as error:
        assert error.code == "E_GRID"  # noqa: PT017 - a refusal is one of two right answers
        return
    assert exact_sums(snapped)
    assert [layer.layer for layer in certificate(snapped)] == [x.name for x in network.layers]


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
