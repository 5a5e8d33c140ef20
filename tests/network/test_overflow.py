"""What can overflow: bounds that no input passes, and witnesses that reach them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import integer_frames, integer_networks, random_integer_network
from random_networks import networks
from snnpipe.errors import RequestError
from snnpipe.network import simulate as reference
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv, Delay, Dense, Flatten, Layer, Network, SumPool, Synapse
from snnpipe.network.linear import apply
from snnpipe.network.neurons import IF, LIF, CubaLIF, Sum
from snnpipe.network.overflow import (
    Overflow,
    beyond_32_bits,
    can_overflow,
    drive,
    driving_frames,
    overflows,
)
from snnpipe.network.pullback import pull_through
from snnpipe.network.shapes import shape_after
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Trace, join


def f32(*values: Any) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def one(neuron: Any, *synapses: Synapse, shape: tuple[int, ...] = (1,), name: str = "a") -> Layer:
    return Layer(name, neuron, shape, synapses)


def integer(
    *layers: Layer, shape: tuple[int, ...] = (2,), exponents: Any = None, **contract: Any
) -> Network:
    arithmetic = Integer(8, {layer.name: 0 for layer in layers}, {}, exponents or {})
    own = Contract(**{"steps": 3, "arithmetic": arithmetic, **contract})
    return Network("input", shape, layers, layers[-1].name, own)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(networks(max_layers=2), st.integers(0, 99))
def test_pulling_back_is_the_transpose(network: Network, seed: int) -> None:
    """<g, A x> = <pulled g, x> for every synapse, its biases taken out."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        for synapse in layer.synapses:
            shape = network.shape_of(synapse.source)
            x = rng.integers(-4, 5, (1, *shape)).astype(np.float64)
            there, silent = x, np.zeros_like(x)
            for operation in synapse.operations:
                there, silent = apply(operation, there), apply(operation, silent)
            g = rng.integers(-4, 5, layer.shape).astype(np.float64)
            pulled = pull_through(synapse.operations, g, shape)
            assert pulled.shape == shape
            assert np.isclose((pulled * x[0]).sum(), (g * (there - silent)[0]).sum())
            every = pull_through(synapse.operations, np.stack([3 * g, -g]), shape)
            assert np.array_equal(every, np.stack([3 * pulled, -pulled]))


def test_axes_joined_in_the_middle_pull_back_to_where_they_were() -> None:
    wanted = np.arange(2 * 12, dtype=np.float64).reshape(2, 3, 4)
    pulled = pull_through((Flatten("f", 1, 2),), wanted, (3, 2, 2))
    assert np.array_equal(pulled, wanted.reshape(2, 3, 2, 2))


def test_windows_that_leave_a_rest_pull_back_nothing_onto_it() -> None:
    conv = Conv("c", np.float32([[[[1, 10]]]]), stride=(1, 2), padding=(0, 1), dilation=(1, 2))
    pulled = pull_through((conv,), np.float64([[[1, 2]]]), (1, 1, 4))
    # Taps at -1 and 1, then at 1 and 3.
    assert shape_after(conv, (1, 1, 4)) == (1, 1, 2)
    assert pulled.tolist() == [[[0, 12, 0, 20]]]


def exact(weights: list[int], x: Any, neuron: Any) -> tuple[list[int], list[int]]:
    """u and v of one neuron that never fires, in whole numbers without any limit."""
    du = int(4096 * neuron.synaptic_decay) if isinstance(neuron, CubaLIF) else 0
    dv = 4096 if isinstance(neuron, IF) else int(4096 * neuron.decay)

    def kept(value: int, factor: int) -> int:
        return abs(value) * factor // 4096 * (1 if value > 0 else -1)

    u = v = 0
    us, vs = [], []
    for frame in x:
        u = kept(u, du) + 64 * sum(w * int(s) for w, s in zip(weights, frame, strict=True))
        v = kept(v, dv) + u
        us.append(u)
        vs.append(v)
    return us, vs


@pytest.mark.parametrize(
    "neuron",
    [
        IF(f32(131071)),
        LIF(f32(0.75), f32(131071)),
        CubaLIF(f32(0.5), f32(0.25), f32(131071)),
        CubaLIF(f32(4095 / 4096), f32(4095 / 4096), f32(131071)),
    ],
)
def test_bounds_are_those_of_all_inputs(neuron: Any) -> None:
    """Every one of the 4^3 inputs: no state passes its bound, and some input comes within what
    truncation took."""
    weights, exponent = [-250, 40], 8
    dense = Dense("w", f32([weights]))
    network = integer(one(neuron, Synapse("input", (dense,))), exponents={"w": exponent})
    runs = [
        exact([w << exponent for w in weights], x, neuron)
        for x in product(product((0, 1), repeat=2), repeat=3)
    ]
    lowest_u = min(min(u) for u, _ in runs)
    lowest_v = min(min(v) for _, v in runs)
    found = {overflow.what: overflow for overflow in overflows(network)}
    current = found.get("current wraps")
    if lowest_u <= -(2**23):
        assert current is not None
        assert -64 * 6 <= current.reach * 64 - lowest_u <= 0
    else:
        assert current is None
    if current is None:
        below = found["membrane saturates below"]
        assert below.reach <= lowest_v
        memory = isinstance(neuron, CubaLIF)  # the bound has its current at its furthest throughout
        assert below.reach >= (2 * lowest_v if memory else lowest_v - 12)
        assert below.limit == 2**23 - 1


def all_counted(network: Network, x: np.ndarray, steps: int) -> Trace:
    """A run that counts in every layer, proven or not."""
    everything = frozenset(layer.name for layer in network.layers)
    with mock.patch.object(reference, "can_overflow", return_value=everything):
        return simulate(network, x, steps)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.booleans().flatmap(lambda overflow: integer_networks(overflow=overflow)),
       st.integers(0, 99), st.booleans())  # fmt: skip
def test_what_is_proven_never_overflows(network: Network, seed: int, longer: bool) -> None:
    steps = network.contract.steps + (7 if longer else 0)
    x = integer_frames(network, 6, seed, steps if seed % 2 else None)
    counted = all_counted(network, x, steps).overflows
    assert counted is not None
    proven = {layer.name for layer in network.layers} - can_overflow(network, steps)
    assert not any(counted[name] for name in proven)


def test_witnesses_overflow() -> None:
    """Where the input alone drives a first layer beyond its limit, by more than a delay or
    truncation takes, the driving frames make it overflow."""
    made = dict.fromkeys(["current wraps", "membrane saturates below"], 0)
    for seed in range(150):
        network = random_integer_network(seed, overflow=True, host=False, layers=1)
        first = network.layers[0]
        for overflow in overflows(network):
            frames = driving_frames(network, overflow)
            slack = 64 * overflow.steps if overflow.limit > 2**20 else overflow.steps
            delayed = any(isinstance(op, Delay) for op in first.synapses[0].operations)
            beyond = abs(overflow.reach) > overflow.limit + slack
            memory = isinstance(first.neuron, CubaLIF) and overflow.what != "current wraps"
            if overflow.layer != first.name or frames is None or delayed or memory or not beyond:
                continue
            if overflow.what in made:
                trace = all_counted(network, frames, len(frames))
                assert (trace.overflows or {})[first.name] > 0, (seed, overflow)
                made[overflow.what] += 1
    assert min(made.values()) >= 3, made


def test_a_witness_times_its_delays() -> None:
    """Two synapses, one 2 steps late and of the other sign: each source fires when it helps."""
    near = Dense("near", f32([[200, -120]]))
    far = Dense("far", f32([[-180, 50]]))
    layer = one(
        LIF(f32(0.5), f32(131071)),
        Synapse("input", (near,)),
        Synapse("input", (far, Delay("d", 2))),
    )
    network = integer(layer, exponents={"near": 8, "far": 8}, steps=4)
    below = next(o for o in overflows(network) if o.what == "membrane saturates below")
    assert (below.layer, below.neuron, below.neurons) == ("a", (0,), 1)
    fires = drive(network, below)["input"]
    # What fires at step s counts 0.5^(3-s) at once and 4 times that where it comes 2 late.
    assert fires.tolist() == [[True, False], [True, False], [False, True], [False, True]]
    frames = driving_frames(network, below)
    assert frames is not None
    assert frames.tolist() == fires[:, None].tolist()
    lowest: list[float] = []
    simulate(network, frames, 4, watch=lambda _, t, v, u: lowest.append(v.item()))
    others = [np.float32(x).reshape(4, 1, 2) for x in product(product((0, 1), repeat=2), repeat=4)]
    every: list[float] = []
    for x in others:
        simulate(network, x, 4, watch=lambda _, t, v, u: every.append(v.item()))
    assert min(lowest) == min(every)


def test_a_witness_of_a_readout_fires_at_every_step() -> None:
    dense = Dense("w", f32([[250, -2], [-250, 2]]))
    layer = one(Sum(), Synapse("input", (Delay("d", 1), dense)), shape=(2,))
    network = integer(layer, exponents={"w": 8}, steps=4)
    (found,) = overflows(network)
    assert (found.what, found.neuron, found.neurons) == ("read-out saturates", (0,), 2)
    frames = driving_frames(network, found)
    assert frames is not None
    assert frames[:, 0].tolist() == [[1, 0]] * 3 + [[0, 0]]  # the last comes too late
    trace = simulate(network, frames, 4)
    assert trace.overflows == {"a": 2}  # 4096000 a step, three times


def test_a_witness_of_neurons_names_them() -> None:
    layers = (
        one(IF(f32(1)), Synapse("input"), shape=(2,), name="s"),
        one(IF(f32(131071)), Synapse("s", (Dense("w", f32([[-256, 2]])),))),
    )
    network = integer(*layers, exponents={"w": 8}, steps=3)
    (below,) = overflows(network)
    assert (below.what, below.reach) == ("membrane saturates below", -256 * 256 * 64 * 3)
    assert {k: v.tolist() for k, v in drive(network, below).items()} == {"s": [[True, False]] * 3}
    assert driving_frames(network, below) is None
    with pytest.raises(RequestError) as caught:
        check(network, "integer")
    assert caught.value.code == "E_RANGE"
    assert caught.value.message == (
        "layer 'a' can reach the membrane -12582912 at [0] within 3 steps of 1 of 's'; expected at "
        "least -8388607, below it saturates; use smaller weights"
    )
    assert check(network, "integer", "count") is None


def test_a_convolution_that_wraps_before_its_exponent_is_found() -> None:
    conv = Conv("c", np.full((1, 1, 1, 1), 255, np.float32))
    layer = one(LIF(f32(0), f32(9)), Synapse("input", (conv, SumPool("p", (1, 2), (1, 2)))),
                shape=(1, 1, 1))  # fmt: skip
    network = integer(layer, shape=(1, 1, 2), exponents={"c": -12}, input_levels=40000)
    (found,) = overflows(network)
    assert found == Overflow("a", "sum wraps", (0, 0, 0), 2, 255 * 40000, 2**23 - 1, 3, "c")
    assert drive(network, found)["input"].reshape(3, 2).tolist() == [[0, 0], [0, 0], [1, 0]]
    with pytest.raises(RequestError, match=r"'c' \(layer 'a'\) can reach a sum of 10200000 at"):
        check(network, "integer")
    assert overflows(replace(network, contract=replace(network.contract, input_levels=32))) == ()


def test_a_current_that_wraps_lets_the_membrane_fall_as_far() -> None:
    """All weights are positive, and the membrane saturates below: behind a wrap."""
    dense = Dense("w", f32([[255, 255]]))
    layer = one(LIF(f32(0.5), f32(131071)), Synapse("input", (dense,)))
    network = integer(layer, exponents={"w": 8}, input_levels=2)
    found = {overflow.what: overflow.reach for overflow in overflows(network)}
    assert found == {
        "current wraps": 2 * 2 * 255 * 256,
        "membrane saturates below": -(2**23) * 1.75,
    }
    assert overflows(replace(network, contract=replace(network.contract, input_levels=1))) == ()
    trace = simulate(network, f32([[2, 1]]), 3)  # 195840: u is 12533760 - 2^24
    assert trace.overflows == {"a": 3}


def test_floats_have_no_overflows() -> None:
    layer = one(IF(f32(1)), Synapse("input", (Dense("w", f32([[1e30, 1e30]])),)))
    network = Network("input", (2,), (layer,), "a", Contract(3))
    assert (overflows(network), can_overflow(network, 9), beyond_32_bits(network)) == (
        (),
        set(),
        "",
    )
    trace = simulate(network, np.ones((1, 2), np.float32), 3)
    assert trace.overflows is None
    assert join([trace, trace]).overflows is None


def test_counts_of_batches_add_up() -> None:
    dense = Dense("w", f32([[-256, 2]]))
    network = integer(one(IF(f32(9)), Synapse("input", (dense,))), exponents={"w": 8}, steps=4)
    trace = simulate(network, np.ones((3, 2), np.float32), 4)
    assert trace.overflows == {"a": 3 * 2}  # -254 * 2^14 a step: the third passes the rail
    assert join([trace, trace]).overflows == {"a": 12}
    assert join([trace, replace(trace, overflows=None)]).overflows is None
    assert trace.until(2).overflows is None
    assert simulate(network, np.zeros((1, 2), np.float32), 4).until(2).overflows == {"a": 0}
