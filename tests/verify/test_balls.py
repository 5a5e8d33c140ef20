"""The bound: no float32 evaluation leaves it, and half of it would be too little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from off_grid import off_grid, run_scrambled
from random_networks import frames, networks
from snnpipe.network.contract import Contract
from snnpipe.network.layers import AvgPool, Conv, Dense, Flatten, Layer, Network, Scale, Synapse
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Sum
from snnpipe.network.simulate import frames_of, simulate
from snnpipe.verify import balls
from snnpipe.verify.balls import Ball, rounded
from snnpipe.verify.forced import Recording, exact_cell, forced, maps_of, membranes
from snnpipe.verify.replay import replay_all

SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def one(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def recording_of(network: Network, x: np.ndarray, trace: Any) -> Recording:
    shown, _ = frames_of(network, x, trace.steps)
    return forced(network, shown, trace.spikes, trace.outputs, rounded, maps_of(network))


def balls_of(recording: Recording, layer: Layer) -> list[Ball]:
    """The membranes of every step, of recorded layers and of those that follow from them."""
    sent = recording.sent[layer.name]
    if not recording.recorded(layer):
        assert sent.errors is not None
        return [Ball(*pair) for pair in zip(sent.values, sent.errors, strict=True)]
    cell = exact_cell(layer, recording.network)
    return list(membranes(cell, lambda t: recording.current(layer, t), sent.values))


def outside(network: Network, x: np.ndarray, seed: int) -> tuple[int, int]:
    """Of a float32 run in a random order of summation: membranes that leave their bound, and
    what replay calls wrong."""
    seen: dict[str, list[np.ndarray]] = {layer.name: [] for layer in network.layers}
    trace = run_scrambled(
        network,
        x,
        network.contract.steps,
        seed,
        lambda name, _t, u, _i: seen[name].append(np.array(u)),
    )
    recording = recording_of(network, x, trace)
    left = sum(
        int(np.sum(~(abs(u - ball.value) <= ball.error)))
        for layer in network.layers
        if not isinstance(layer.neuron, Sum)
        for u, ball in zip(seen[layer.name], balls_of(recording, layer), strict=True)
    )
    return left, sum(layer.wrong for layer in replay_all(recording))


@SLOW
@given(networks(graded=True), st.integers(0, 2**32 - 1), st.booleans())
def test_no_order_of_summation_leaves_the_bound(network: Network, seed: int, still: bool) -> None:
    network = off_grid(network, seed)
    x = frames(network, 3, seed, None if still else network.contract.steps)
    assert outside(network, x, seed) == (0, 0)


def chain(neuron: Neuron, seed: int, reset: Any = "value") -> Network:
    """Several synapses, a mean over nine, a scale, and two weighted operations in a row."""
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    mean = AvgPool("mean", (3, 3), (1, 1))
    conv = Conv("conv", some(3, 2, 3, 3), some(3), padding=(1, 1))
    first = (Scale("scale", some(2, 1, 1)), conv, mean, Flatten("f1"), Dense("fc1", some(12, 48)))
    second = (mean_of("mean2"), Flatten("f2"), Dense("fc2", some(12, 32), some(12)))
    layers = (
        Layer("sum", Sum(), (12,), (Synapse("input", first), Synapse("input", second))),
        Layer("mid", neuron, (12,), (Synapse("sum", (Dense("fc3", some(12, 12), some(12)),)),)),
        Layer("out", LI(one(0.9)), (5,), (Synapse("mid", (Dense("fc4", some(5, 12)),)),)),
    )
    return Network("input", (2, 6, 6), layers, "out", Contract(6, reset=reset))


def mean_of(name: str) -> AvgPool:
    return AvgPool(name, (3, 3), (1, 1))


CUBA = {"synaptic_decay": one(0.7), "synaptic_gain": one(0.3), "gain": one(1.3), "leak": one(0.01)}


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize(
    "neuron",
    [
        IF(one(0.3), gain=one(0.7)),
        LIF(one(0.9), one(0.3), one(-0.1), one(1.1), one(0.05)),
        CubaLIF(decay=one(0.9), threshold=one(0.2), **CUBA),
        CubaLI(decay=one(0.8), **CUBA),
    ],
    ids=lambda neuron: type(neuron).__name__,
)
def test_bounds_travel_through_chains_and_neurons(neuron: Neuron, reset: Any) -> None:
    for seed in range(5):
        network = chain(neuron, seed, reset)
        x = np.random.default_rng(seed).random((6, 8, 2, 6, 6)).astype(np.float32)
        assert outside(network, x, seed) == (0, 0)


@pytest.mark.parametrize("merged", [False, True])
def test_synapses_may_be_added_apart_or_as_one_sum(merged: bool) -> None:
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 1, (200, 9)).astype(np.float32) for _ in range(3)]
    synapses = [Synapse("input", (Dense(f"fc{n}", w),)) for n, w in enumerate(weights)]
    layer = Layer("sum", Sum(), (200,), tuple(synapses))
    network = Network("input", (9,), (layer,), "sum", Contract(1))
    x = rng.random((50, 9)).astype(np.float32)
    products = [x[:, None] * w for w in weights]
    groups = [np.concatenate(products, -1)] if merged else products
    total = np.zeros((50, 200), np.float32)
    for group in groups:
        part = np.zeros_like(total)
        for term in rng.permutation(group.shape[-1]):
            part = part + group[..., term]
        total = total + part
    trace = simulate(network, x, 1)
    ball = recording_of(network, x, trace).current(layer, 0)
    assert (abs(total - ball.value) <= ball.error).all()
    assert (abs(total - ball.value) > 0.05 * ball.error).any()


def tight_network() -> Network:
    """1 + 2^-24 is 1 in float32: the whole bound of one addition is used up."""
    fc = Dense("fc", np.array([[1.0, 2.0**-24]], np.float32))
    layer = Layer("if", IF(one(1.0)), (1,), (Synapse("input", (fc,)),))
    return Network("input", (2,), (layer,), "if", Contract(1))


def test_half_the_bound_makes_a_right_spike_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = tight_network(), np.ones((1, 2), np.float32)
    trace = simulate(network, x, 1)
    assert trace.outputs.item() == 0  # exactly, it is above the threshold
    (layer,) = replay_all(recording_of(network, x, trace))
    assert (layer.wrong, layer.within_rounding, layer.certain) == (0, 1, 0)
    monkeypatch.setattr(balls, "U", balls.U / 2)
    (layer,) = replay_all(recording_of(network, x, trace))
    assert layer.wrong == 1


def test_half_the_bound_is_left_by_ordinary_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balls, "U", balls.U / 2)
    neuron = LIF(one(0.9), one(0.3))
    x = np.random.default_rng(1).random((6, 8, 2, 6, 6)).astype(np.float32)
    few = Dense("few", np.random.default_rng(2).normal(0, 1, (64, 2)).astype(np.float32))
    layer = Layer("lif", neuron, (64,), (Synapse("input", (few,)),))
    network = Network("input", (2,), (layer,), "lif", Contract(6))
    assert outside(network, x[..., 0, 0], 4)[0] > 0


def test_where_nothing_is_rounded_nothing_is_excused() -> None:
    """A power of two as decay, one spike at a time: E is 0, and > is told from >=."""
    identity = Layer("if", IF(one(1.0)), (3,), (Synapse("input"),))
    network = Network("input", (3,), (identity,), "if", Contract(2))
    x = np.array([[1.0, 0.0, 1.0]], np.float32)
    trace = simulate(network, x, 2)
    (layer,) = replay_all(recording_of(network, x, trace))
    assert (layer.wrong, layer.ties) == (0, 2)
    wrong = simulate(network.with_contract(Contract(2, compare="ge")), x, 2)
    (layer,) = replay_all(recording_of(network, x, wrong))
    assert layer.wrong == 2 * 2
    assert layer.within_rounding == 0


def test_a_membrane_that_decays_below_float32_is_not_wrong() -> None:
    layer = Layer("li", LI(one(0.3)), (4,), (Synapse("input"),))
    network = Network("input", (4,), (layer,), "li", Contract(120))
    x = np.zeros((120, 2, 4), np.float32)
    x[0] = np.random.default_rng(0).random((2, 4))
    trace = simulate(network, x, 120)
    assert (trace.outputs[-1] == 0).all()
    (judged,) = replay_all(recording_of(network, x, trace))
    assert judged.wrong == 0
