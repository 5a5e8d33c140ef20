"""Counts of single samples: they add up to the run's, and their spread is the textbook's."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import toy_network
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe.hardware.sampling import sampling, synops_by_sample
from snnpipe.network.fanout import synaptic_operations
from snnpipe.network.neurons import Spiking
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, join

NETWORK = toy_network.network()


def test_samples_of_different_work():
    bright = simulate(NETWORK, toy_network.frame(), 4)
    dark = simulate(NETWORK, 0 * toy_network.frame(), 4)
    half = simulate(NETWORK, toy_network.frame() / 2, 4)
    each = [int(synops_by_sample(NETWORK, one)[0]) for one in (bright, dark, half)]
    assert each[:2] == [280, 0]
    assert 0 < each[2] < 280
    found = sampling(NETWORK, join([bright, dark, half]))
    assert (found.n, found.least, found.most) == (3, 0, 280)
    assert (found.mean, found.deviation) == (mean(each), stdev(each))
    assert sampling(NETWORK, bright).deviation == 0.0
    assert sampling(NETWORK, replace(bright, spikes={})) is None


@settings(max_examples=20, deadline=None, derandomize=True)
@given(networks(), st.integers(0, 1000))
def test_they_add_up_to_the_run(network, seed):
    steps = network.contract.steps
    trace = simulate(network, frames(network, 3, seed), steps, Record())
    spiking = {layer.name for layer in network.layers if isinstance(layer.neuron, Spiking)}
    silenced = {
        name: counts if name in spiking else np.zeros_like(counts)
        for name, counts in trace.fired.items()
    }
    work = synaptic_operations(network, silenced, 3).values()
    assert synops_by_sample(network, trace).sum() == sum(int(one.synops.sum()) for one in work)
