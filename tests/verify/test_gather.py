"""Receptive fields: many neurons at once see what each sees alone, and what the layer computes."""

from __future__ import annotations

import numpy as np
from random_networks import dyadic, frames
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv, Flatten, Layer, Network, SumPool, Synapse
from snnpipe.network.linear import through
from snnpipe.network.neurons import IF
from snnpipe.network.simulate import simulate
from snnpipe.verify.gather import _read_back
from snnpipe.verify.proof import prove

SHAPE = (8, 12, 12)


def network() -> Network:
    """Spikes through a pool and a convolution, as in networks of event cameras."""
    rng = np.random.default_rng(2)
    first = Conv("first", dyadic(rng, (8, 2, 3, 3)), padding=(1, 1))
    pool = SumPool("pool", (2, 2), (2, 2))
    second = Conv("second", dyadic(rng, (8, 8, 3, 3)), dyadic(rng, (8,)), padding=(1, 1))
    fire = IF(np.array(1.0, np.float32))
    layers = (
        Layer("a", fire, SHAPE, (Synapse("input", (first,)),)),
        Layer("b", fire, (8, 6, 6), (Synapse("a", (pool, second)),)),
        Layer("c", fire, (288,), (Synapse("b", (Flatten("flat"),)),)),
    )
    return Network("input", (2, 12, 12), layers, "c", Contract(steps=4))


def test_ten_thousand_inputs_are_gathered_like_one() -> None:
    found = network()
    synapse = found.layer("b").synapses[0]
    neurons = np.arange(288)
    sources, parts = _read_back(found, synapse, neurons)
    assert sources.size > 8192
    x = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.float64)
    pooled = np.einsum("...w,...w->...", x.reshape(-1)[sources], parts["pool"][0])
    current = np.einsum("...w,...w->...", pooled, parts["second"][0]) + parts["second"][1]
    assert np.array_equal(current, through(synapse, x[np.newaxis]).reshape(-1))
    for neuron in (0, 57, 287):
        alone, _ = _read_back(found, synapse, neurons[neuron : neuron + 1])
        assert np.array_equal(alone[0], sources[neuron])


def test_a_batch_with_many_near_cases_has_none_wrong() -> None:
    found = network()
    x = frames(found, 30, seed=1, steps=4)
    judged = prove(found, x, simulate(found, x, 4))
    assert sum(layer.spikes for layer in judged) > 10_000
    assert sum(layer.within_rounding + layer.ties for layer in judged) > 1000
    assert not any(layer.wrong for layer in judged)
