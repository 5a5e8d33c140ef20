"""One layer per core: the memory of synapse lists, and the limits that are broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toy_network
from snnpipe.hardware.chip import load_chip
from snnpipe.hardware.mapping import Excess, axon_bits, messages_sent, one_layer_per_core
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.fanout import synapse_counts
from snnpipe.network.layers import Delay, Dense, Layer, Network, Synapse
from snnpipe.network.neurons import IF, LI, CubaLI, Sum, Threshold
from snnpipe.network.simulate import simulate

LOIHI = load_chip("loihi1")
FORM = LOIHI.syn_format


def dense_network(inputs: int, outputs: int, **contract) -> Network:
    fc = Dense("fc", np.ones((outputs, inputs), np.float32))
    layer = Layer("fc", IF(np.array(1.0, np.float32)), (outputs,), (Synapse("input", (fc,)),))
    contract = Contract(1, input_coding="spikes", **contract)
    return Network("input", (inputs,), (layer,), "fc", contract)


def silent(network: Network) -> list:
    names = [network.input, *network.by_name]
    return synapse_counts(
        network, {n: np.zeros((1, *network.shape_of(n)), np.int64) for n in names}
    )


@pytest.mark.parametrize(
    ("synapses", "bits"), [(0, 0), (1, 64), (64, 576), (128, 1152), (142, 1280), (143, 1344)]
)
def test_bits_of_one_axon(synapses, bits):
    """Blocks of 64 synapses of 8 bits behind 10 bits, in words of 64 bits."""
    assert axon_bits(np.array([synapses]), 8, FORM) == bits
    assert axon_bits(np.full((3, 7), synapses), 8, FORM) == 21 * bits


def test_a_dense_layer_of_784_to_512_needs_four_cores():
    """142 neurons fill a core: 784 axons in 1,048,576 bits leave 1,337 bits for each."""
    limit = LOIHI.limits.syn_bits_per_core
    bits = {n: axon_bits(np.full(784, n), 8, FORM) for n in (128, 142, 143)}
    assert bits[128] == 903_168
    assert bits[142] <= limit < bits[143]
    network = dense_network(784, 512)
    mapping = one_layer_per_core(network, LOIHI, silent(network), host_input=False)
    assert mapping.cores[0].synapse_bits == 784 * 8 * 576
    assert mapping.unmapped == (Excess("fc", "syn_bits_per_core", 3_612_672, limit),)
    # When the host computes the currents, no synapse of this layer is stored on the chip.
    host = one_layer_per_core(network, LOIHI, silent(network), host_input=True)
    assert (host.unmapped, host.cores[0].axons_in) == ((), 0)


def test_every_limit_is_named_with_what_is_needed():
    network = dense_network(5000, 1025, arithmetic=Integer(10, {}))
    layer = network.layers[0]
    thresholds = np.arange(1025, dtype=np.float32) % 9 + 1
    (fc,) = layer.synapses[0].operations
    synapse = Synapse("input", (Delay("d0", 30), fc, Delay("d1", 33)))
    layer = replace(layer, neuron=IF(thresholds), synapses=(synapse,))
    network = replace(network, layers=(layer,))
    mapping = one_layer_per_core(network, LOIHI, silent(network), host_input=False)
    found = {excess.limit: (excess.needed, excess.allowed) for excess in mapping.unmapped}
    assert found.pop("syn_bits_per_core")[1] == 1_048_576
    assert found == {
        "neurons_per_core": (1025, 1024),
        "axons_in": (5000, 4096),
        "thresholds_per_core": (9, 8),
        "weight_bits": (10, 9),
        "delay_max": (63, 62),
    }


def test_messages_go_once_to_each_layer_that_is_reached():
    network = toy_network.network()
    fc = Dense("skip", np.ones((3, 32), np.float32))
    one, two, three = network.layers
    twice = Synapse("two", three.synapses[0].operations)
    skip = Synapse("one", (three.synapses[0].operations[0], fc))
    three = replace(three, synapses=(*three.synapses, twice, skip))
    network = replace(network, layers=(one, two, three))
    trace = simulate(network, toy_network.frame(), 4)
    counts = synapse_counts(network, trace.fired)
    assert (messages_sent(counts, "one") == 2).all()
    assert (messages_sent(counts, "two") == 1).all()
    assert messages_sent(counts, "three").sum() == 0
    mapping = one_layer_per_core(network, LOIHI, counts, host_input=True)
    assert [core.axons_out for core in mapping.cores] == [64, 8, 0]
    assert [core.axons_in for core in mapping.cores] == [0, 32, 8 + 32]


def test_graded_values_do_not_fit_a_chip_of_binary_spikes():
    fc = Dense("fc", np.ones((2, 3), np.float32))
    layers = (
        Layer("join", Sum(), (3,), (Synapse("input"),)),
        Layer("out", Sum(), (2,), (Synapse("join", (fc,)),)),
    )
    network = Network("input", (3,), layers, "out", Contract(1))
    mapping = one_layer_per_core(network, LOIHI, silent(network), host_input=True)
    assert mapping.unmapped == (Excess("join", "graded_bits", 1, 0),)


@pytest.mark.parametrize("neuron", [LI(np.float32(0.5)), CubaLI(np.float32(0.5), np.float32(0.5))])
def test_membranes_that_are_sent_are_graded_and_need_no_threshold(neuron):
    layers = (
        Layer("li", neuron, (3,), (Synapse("input"),)),
        Layer("out", Threshold(np.float32([1, 2, 2])), (3,), (Synapse("li"),)),
    )
    network = Network("input", (3,), layers, "out", Contract(1, input_coding="spikes"))
    mapping = one_layer_per_core(network, LOIHI, silent(network), host_input=False)
    assert [core.thresholds for core in mapping.cores] == [0, 2]
    assert mapping.unmapped == (Excess("li", "graded_bits", 1, 0),)


def test_what_is_not_published_is_listed_as_unchecked():
    network = dense_network(5000, 3)
    counts = silent(network)
    few = replace(LOIHI, limits=replace(LOIHI.limits, delay_max=None, conv_sharing=True))
    mapping = one_layer_per_core(network, few, counts, host_input=False)
    assert mapping.unchecked == ("axons_in", "syn_bits_per_core", "delay_max")
    assert mapping.unmapped == ()
    none = replace(LOIHI, syn_format=None)
    assert one_layer_per_core(network, none, counts, False).unchecked == ("syn_bits_per_core",)
    assert one_layer_per_core(network, LOIHI, counts, False).unchecked == ()


def test_more_layers_than_cores_take_more_chips():
    network = toy_network.network()
    small = replace(LOIHI, limits=replace(LOIHI.limits, cores=2))
    counts = silent(network)
    assert one_layer_per_core(network, small, counts, True).chips == 2
    assert one_layer_per_core(network, LOIHI, counts, True).chips == 1
