"""Loihi integers: legal for any input, near the float network, refused by name where impossible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_networks import frames
from snnpipe.errors import RequestError
from snnpipe.export.quantise import RATIOS, quantise
from snnpipe.network.bounds import term_sums
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.grid import snap
from snnpipe.network.layers import AvgPool, Conv, Delay, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import IF, LI, LIF, Neuron, Sum
from snnpipe.network.simulate import simulate


def one(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


LEAKY = LIF(one(0.25), one(1.0))


def network(seed: int = 0, neuron: Neuron = LEAKY, bias: float = 0.2, gain: float = 1.0) -> Network:
    """Conv, conv, dense read-out on (1, 7, 6); snapped to the grid."""
    rng = np.random.default_rng(seed)

    def normal(scale: float, *shape: int) -> NDArray[np.float32]:
        return (rng.normal(0, scale, shape)).astype(np.float32)

    conv1 = Conv("conv1", normal(gain, 4, 1, 3, 3), normal(bias, 4), (1, 1), (1, 1))
    conv2 = Conv("conv2", normal(0.4, 6, 4, 3, 2), normal(bias, 6), (2, 1), (1, 0))
    fc = Dense("fc", normal(0.2, 3, 6 * 4 * 5), normal(bias, 3))
    layers = (
        Layer("lif1", neuron, (4, 7, 6), (Synapse("input", (conv1,)),)),
        Layer("lif2", neuron, (6, 4, 5), (Synapse("lif1", (conv2,)),)),
        Layer("readout", Sum(), (3,), (Synapse("lif2", (Flatten("flat"), fc)),)),
    )
    contract = Contract(steps=4, input_scale=1 / 256, input_levels=255)
    return snap(Network("input", (1, 7, 6), layers, "readout", contract))


def with_layer(source: Network, name: str, **changes: Any) -> Network:
    layers = [replace(x, **changes) if x.name == name else x for x in source.layers]
    return replace(source, layers=tuple(layers))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([0.0, 0.2, 3.0]),
    st.sampled_from([0.01, 1.0, 20.0]),
    st.sampled_from([LEAKY, IF(one(1.5)), LIF(one(0.75), one(0.5))]),
)
def test_what_comes_out_is_legal(
    seed: int, bits: int, bias: float, gain: float, neuron: Neuron
) -> None:
    integer, scales = quantise(network(seed, neuron, bias, gain), bits)
    check(integer, "integer")
    arithmetic = integer.contract.arithmetic
    assert isinstance(arithmetic, Integer)
    assert arithmetic.weight_bits == bits
    assert all(scale.scale <= scale.cap * 1.0001 for scale in scales)
    step = 2 ** (9 - bits)
    for layer, _, operation in integer.operations():
        if layer.name not in arithmetic.host_scale and isinstance(operation, Conv | Dense):
            assert (operation.weight % step == 0).all()
            assert -256 <= operation.weight.min() <= operation.weight.max() <= 256 - step


def test_eight_bits_stay_near_the_float_network() -> None:
    source = network(1)
    integer, scales = quantise(source)
    x = frames(source, 200, 2)
    a, b = simulate(source, x, 4), simulate(integer, x, 4)
    for name, bits in a.spikes.items():
        changed = int(np.bitwise_count(bits ^ b.spikes[name]).sum())
        fired = int(np.bitwise_count(bits).sum())
        assert fired > 1000
        assert changed < 0.02 * fired, name
    read = b.outputs / (64 * scales[-1].scale)
    assert np.corrcoef(read.ravel(), a.outputs.ravel())[0, 1] > 0.99


def test_fewer_bits_change_more() -> None:
    source = network(2)
    x = frames(source, 100, 2)
    truth = simulate(source, x, 4).spikes["lif2"]

    def changed(bits: int) -> int:
        spikes = simulate(quantise(source, bits)[0], x, 4).spikes["lif2"]
        return int(np.bitwise_count(truth ^ spikes).sum())

    assert changed(8) < changed(4) < changed(2)


def test_the_host_current_never_clips() -> None:
    for gain in (0.05, 1.0, 30.0):
        source = network(3, gain=gain)
        integer, scales = quantise(source)
        arithmetic = integer.contract.arithmetic
        assert isinstance(arithmetic, Integer)
        scale = arithmetic.host_scale["lif1"]
        positive, negative = term_sums(source)["lif1"]
        largest = max(positive.max(), negative.max())
        assert largest * scale * 64 <= 4095 * 2**7
        assert largest * (scale + 1) * 64 > 4095 * 2**7
        assert scales[0].scale == scale
        neuron = integer.layer("lif1").neuron
        assert isinstance(neuron, LIF)
        assert neuron.threshold == scale


def test_the_scale_is_the_one_of_least_error() -> None:
    source = network(4)
    _, scales = quantise(source, 4)
    conv = source.layer("lif2").synapses[0].operations[0]
    assert isinstance(conv, Conv)
    weight = conv.weight.astype(np.float64)
    step, best = 32, (np.inf, 0.0)
    for ratio in RATIOS:
        scale = ratio * (256 - step) / abs(weight).max()
        whole = np.clip(step * np.rint(weight * scale / step), -256, 256 - step)
        best = min(best, (float(((whole / scale - weight) ** 2).sum()), float(scale)))
    assert scales[1].scale == pytest.approx(best[1])
    norm = float((weight**2).sum())
    assert scales[1].relative_error == pytest.approx(np.sqrt(best[0] / norm))


def test_a_matrix_without_a_positive_weight_stays_in_the_range_of_inhibition() -> None:
    source = network(5)
    conv = source.layer("lif2").synapses[0].operations[0]
    assert isinstance(conv, Conv)
    edited = replace(conv, weight=-abs(conv.weight))
    source = snap(with_layer(source, "lif2", synapses=(Synapse("lif1", (edited,)),)))
    integer, _ = quantise(source)
    found = integer.layer("lif2").synapses[0].operations[0]
    assert isinstance(found, Conv)
    assert found.weight.min() >= -254
    check(integer, "integer")


def test_refusals_name_layer_and_reason() -> None:
    source = network(6)
    pool = (AvgPool("pool", (2, 2), (1, 1)), *source.layer("lif2").synapses[0].operations)
    shape = (6, 4, 4)
    pooled = with_layer(source, "lif2", synapses=(Synapse("lif1", pool),), shape=shape)
    delayed = Synapse("lif1", (Delay("d", 1), *source.layer("lif2").synapses[0].operations))
    first = source.layer("lif1").synapses
    cases = [
        (pooled, "'lif2'.*pooling"),
        (with_layer(source, "lif2", neuron=LIF(one(0.3), one(1.0))), "'lif2'.*1/4096"),
        (with_layer(source, "lif1", neuron=LIF(one(0.25), one(1.0), one(-0.5))), "'lif1'.*resets"),
        (with_layer(source, "lif1", neuron=Sum()), "'lif1'.*Sum inside"),
        (with_layer(source, "lif2", neuron=replace(LEAKY, gain=one(2))), "'lif2'.*gain"),
        (with_layer(source, "lif2", neuron=LI(one(0.25))), r"lif2' \(LI.*emit spikes"),
        (with_layer(source, "lif2", synapses=(delayed,)), r"'d' \(Delay, layer 'lif2'\): delays"),
        (with_layer(source, "lif1", synapses=(*first, Synapse("lif1"))), "recurrent synapse from"),
        (with_layer(source, "lif2", synapses=(Synapse("lif1"),)), "'lif2'.*no weights"),
        (source.with_contract(replace(source.contract, reset="subtract")), "reset subtract"),
        (source.with_contract(replace(source.contract, compare="ge")), "compare ge"),
        (quantise(source)[0], "integers already"),
    ]
    for broken, words in cases:
        with pytest.raises(RequestError, match=words) as caught:
            quantise(broken)
        assert caught.value.code == "E_UNSUPPORTED"


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_weight_bits_the_chip_does_not_have(bits: int) -> None:
    with pytest.raises(RequestError, match="2 to 8"):
        quantise(network(7), bits)
