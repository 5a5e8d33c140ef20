"""The reference executor against trains computed by hand: delays, loops, resets and integrators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv1d, Delay, Dense, Layer, Network, Operation, Scale, Synapse
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Sum, Threshold
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace, unpack
from through_time import through_time


def f32(*values: Any) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def run(*layers: Layer, x: list[float], contract: Contract | None = None) -> Trace:
    """One sample of one number a step; everything is recorded."""
    network = Network("in", (1,), layers, layers[-1].name, contract or Contract(1))
    return simulate(network, f32(x).reshape(-1, 1, 1), len(x), Record(None, 1))


def one(name: str, neuron: Any, *synapses: Synapse) -> Layer:
    return Layer(name, neuron, (1,), synapses)


def spikes(trace: Trace, layer: str) -> list[int]:
    return unpack(trace.spikes[layer], (1,)).ravel().tolist()


def currents(trace: Trace, layer: str) -> list[float]:
    return trace.currents[layer].ravel().tolist()


TWICE = Dense("w", f32([[2]]), f32([1]))
DELAYS: dict[str, tuple[tuple[Operation, ...], list[float]]] = {
    "none": ((), [1, 2, 3, 4, 5]),
    "of 0 steps": ((Delay("d", 0),), [1, 2, 3, 4, 5]),
    "of 1 step": ((Delay("d", 1),), [0, 1, 2, 3, 4]),
    "of 2 steps": ((Delay("d", 2),), [0, 0, 1, 2, 3]),
    "longer than the run": ((Delay("d", 9),), [0, 0, 0, 0, 0]),
    "two in a row": ((Delay("d", 1), Delay("e", 2)), [0, 0, 0, 1, 2]),
    "before a bias": ((Delay("d", 2), TWICE), [1, 1, 3, 5, 7]),
    "behind a bias": ((TWICE, Delay("d", 2)), [0, 0, 3, 5, 7]),
    "on both sides": ((Delay("d", 1), TWICE, Delay("e", 1)), [0, 1, 3, 5, 7]),
}


@pytest.mark.parametrize("row", DELAYS)
def test_what_a_delay_lets_out(row: str) -> None:
    operations, expected = DELAYS[row]
    trace = run(one("a", Sum(), Synapse("in", operations)), x=[1, 2, 3, 4, 5])
    assert trace.outputs.ravel().tolist() == expected


def test_a_delay_starts_empty_in_every_run() -> None:
    layer = one("a", Sum(), Synapse("in", (Delay("d", 1),)))
    assert run(layer, x=[7, 8]).outputs.ravel().tolist() == [0, 7]
    assert run(layer, x=[1, 2]).outputs.ravel().tolist() == [0, 1]


def test_a_neuron_that_inhibits_itself_fires_at_every_fourth_step() -> None:
    """c = 1 - 3*(last spike): v is 1 and fires, then -2, -1, 0, and 1 once more."""
    back = Synapse("a", (Scale("s", f32(-3)),))
    trace = run(one("a", IF(f32(0.5)), Synapse("in"), back), x=[1] * 8)
    assert currents(trace, "a") == [1, -2, 1, 1, 1, -2, 1, 1]
    assert spikes(trace, "a") == [1, 0, 0, 0, 1, 0, 0, 0]
    assert trace.fired["a"].ravel().tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert trace.active["a"].tolist() == [1] * 8


def test_biases_of_recurrent_synapses_count_from_the_first_step_on() -> None:
    back = Synapse("a", (Dense("w", f32([[4]]), f32([0.25])),))
    trace = run(one("a", IF(f32(0.6)), Synapse("in"), back), x=[0, 0, 0, 0, 0])
    assert currents(trace, "a") == [0.25, 0.25, 0.25, 4.25, 4.25]
    assert spikes(trace, "a") == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(("steps", "expected"), [(0, [0, 1, 0, 0]), (1, [0, 0, 1, 0])])
def test_a_delay_in_a_loop_adds_to_the_step_of_the_loop(steps: int, expected: list[int]) -> None:
    """b fires at step 0 and a step of the loop, and of the delay, later reaches a."""
    layers = (
        one("a", LI(f32(0)), Synapse("b", (Delay("d", steps),))),
        one("b", Threshold(f32(0.5)), Synapse("a", (Scale("s", f32(0)),)), Synapse("in")),
    )
    trace = run(*layers, x=[1, 0, 0, 0])
    assert spikes(trace, "b") == [1, 0, 0, 0]
    assert trace.fired["a"].ravel().tolist() == expected


def test_within_a_loop_earlier_layers_are_of_this_step_and_later_ones_of_the_last() -> None:
    """A spike runs round: a at 0, b at 0, the sum at 0, a again at 1."""
    layers = (
        one("a", IF(f32(0.5)), Synapse("in"), Synapse("sum", (Scale("s", f32(0.75)),))),
        one("b", Threshold(f32(0.5)), Synapse("a")),
        one("sum", Sum(), Synapse("b"), Synapse("b", (Delay("d", 2),))),
    )
    trace = run(*layers, x=[1, 0, 0, 0, 0])
    assert currents(trace, "sum") == [1, 1, 2, 2, 2]
    assert currents(trace, "a") == [1, 0.75, 0.75, 1.5, 1.5]
    assert spikes(trace, "a") == spikes(trace, "b") == [1, 1, 1, 1, 1]


def test_a_late_reset_takes_the_threshold_off_behind_the_decay() -> None:
    """u = v/2 + c - 1*(last spike), against v/2 where the threshold went off at once."""
    layer = one("a", LIF(f32(0.5), f32(1)), Synapse("in"))
    at_once = Contract(1, reset="subtract")
    late = replace(at_once, reset_time="next_after_decay")
    x = [1.5, 1, 0.75, 0, 2]
    # at once: u = 1.5 (0.5 left), 1.25 (0.25), 0.875, 0.4375, 2.21875
    assert spikes(run(layer, x=x, contract=at_once), "a") == [1, 1, 0, 0, 1]
    # late: u = 1.5, 0.75 + 1 - 1, 0.375 + 0.75, 0.5625 - 1, -0.21875 + 2
    assert spikes(run(layer, x=x, contract=late), "a") == [1, 0, 1, 0, 1]
    membranes: list[float] = []
    network = Network("in", (1,), (layer,), "a", late)
    frames_ = f32(x).reshape(-1, 1, 1)
    simulate(
        network, frames_, 5, watch=lambda _name, _step, u, _i: membranes.append(float(u[0, 0]))
    )
    assert membranes == [1.5, 0.75, 1.125, -0.4375, 1.78125]


def test_integrators_emit_their_membranes_and_never_fire() -> None:
    """i = i/2 + 2c: 2, 1, 2.5; then v = v/2 + (i/2 + 1): 2, 2.5, 3.5."""
    cuba = CubaLI(f32(0.5), f32(0.5), f32(2), f32(0.5), f32(1))
    layers = (one("a", cuba, Synapse("in")), one("b", LI(f32(0.5)), Synapse("a")))
    trace = run(*layers, x=[1, 0, 1])
    assert currents(trace, "a") == [1, 0, 1]
    assert currents(trace, "b") == [2, 2.5, 3.5]
    assert trace.outputs.ravel().tolist() == [2, 3.5, 5.25]
    assert trace.outputs.dtype == np.float32
    assert (trace.spikes, trace.active) == ({}, {})
    assert trace.fired["b"].ravel().tolist() == [1, 1, 1]


def test_a_synaptic_current_is_not_reset() -> None:
    """i = i/2 + c: 4, 2, 1, 1/2; v = i, for every spike puts it to 0 and 1 is not above 1."""
    trace = run(one("a", CubaLIF(f32(0.5), f32(0), f32(1)), Synapse("in")), x=[4, 0, 0, 0])
    assert spikes(trace, "a") == [1, 1, 0, 0]
    assert currents(trace, "a") == [4, 0, 0, 0]


def test_a_convolution_over_one_axis() -> None:
    conv = Conv1d("c", f32([[[1, 10]], [[2, 20]]]), f32(0, 0.5), 2, 1, 2, 2)
    network = Network(
        "in", (2, 4), (Layer("a", Sum(), (2, 2), (Synapse("in", (conv,)),)),), "a", Contract(1)
    )
    x = f32([[[1, 2, 3, 4], [5, 6, 7, 8]]])
    # Taps at -1 and 1, then at 1 and 3; the row of each group for itself.
    assert simulate(network, x, 1).outputs.ravel().tolist() == [20, 42, 120.5, 172.5]


@settings(max_examples=50, derandomize=True, deadline=None)
@given(networks(), st.booleans())
def test_currents_are_the_synapses_on_what_was_emitted(network: Network, per_step: bool) -> None:
    """`through_time`, which knows nothing of the order of a step, finds them again, and
    float64 finds no other: the sums of random networks are exact in float32."""
    steps = 6
    x = frames(network, 3, 0, steps if per_step else None)
    trace = simulate(network, x, steps, Record(None, 3))
    emitted = {network.input: x if per_step else np.broadcast_to(x, (steps, *x.shape))}
    for layer in network.layers:
        if layer.name in trace.spikes:
            emitted[layer.name] = unpack(trace.spikes[layer.name], layer.shape)
        elif isinstance(layer.neuron, Sum):
            emitted[layer.name] = trace.currents[layer.name].reshape(steps, 3, *layer.shape)
    for layer in network.layers:
        total = np.zeros((steps, 3, *layer.shape))
        for synapse in layer.synapses:
            late = network.late(layer, synapse)
            sent = emitted[synapse.source].astype(np.float64)
            total = total + through_time(synapse, sent, late)
        assert (total.reshape(steps, 3, -1) == trace.currents[layer.name]).all()


def test_integers_beyond_32_bits_are_refused() -> None:
    dense = Dense("w", f32([[2**20]]))
    contract = Contract(1, input_levels=64, arithmetic=Integer(8, {}))
    layer = one("a", Sum(), Synapse("in", (dense,)))
    assert run(layer, x=[31], contract=contract).outputs.item() == 31 * 2**26
    with pytest.raises(RequestError, match="layer 'a' came to 2147483648, which 32 bits") as caught:
        run(layer, x=[32], contract=contract)
    assert caught.value.code == "E_RANGE"
