"""The event engine against the reference: every field of the Trace, float32 and integers."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import FLOAT_ONLY, dyadic, frames, networks
from snnpipe.deploy.runtimes.event import PLUGIN
from snnpipe.deploy.runtimes.loihi import PLUGIN as LOIHI
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.network import dynamics
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LIF, CubaLIF, Sum, decay_of
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace, join, unpack
from trace_equality import differences

engine = pytest.importorskip(
    "snnpipe.deploy.engine._engine", reason="the event engine is not built here"
)
WIDEST = engine.build_info()["isa"]
ISAS = ["base", "v3", "v4"][: 1 + ["base", "v3", "v4"].index(WIDEST)]


def run(network: Network, x: np.ndarray, isa: str = "", record: Record | None = None) -> Trace:
    """The engine's Trace under a forced instruction set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNPIPE_ISA", isa)
        session = PLUGIN.open(network, None)
    return session.run(x, network.contract.steps, record)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    networks(),
    st.integers(1, 5),
    st.integers(0, 2**20),
    st.booleans(),
    st.sampled_from(ISAS),
    st.sampled_from([Record(), Record(2, 3), Record(0, 1), Record(7, 9)]),
)
def test_every_field_is_the_references(
    network: Network, samples: int, seed: int, per_step: bool, isa: str, record: Record
) -> None:
    steps = network.contract.steps
    x = frames(network, samples, seed, steps if per_step else None)
    assert differences(run(network, x, isa, record), simulate(network, x, steps, record)) == []


def small(**contract: Any) -> Network:
    """Currents on a grid; decay, threshold and resting value off it, per channel and neuron."""
    rng = np.random.default_rng(5)
    conv = Conv("conv", dyadic(rng, (6, 1, 3, 3)), dyadic(rng, (6,)), (1, 2), (1, 0), (1, 1), 2)
    decay = rng.uniform(0.3, 0.97, (6, 1, 1)).astype(np.float32)
    threshold = rng.uniform(0.2, 0.6, (6, 6, 3)).astype(np.float32)
    lif = LIF(decay, threshold, np.full((), 0.1, np.float32))
    dense = Dense("fc", dyadic(rng, (10, 108)), dyadic(rng, (10,)))
    layers = (
        Layer("lif", lif, (6, 6, 3), (Synapse("in", (conv,)),)),
        Layer("out", Sum(), (10,), (Synapse("lif", (Flatten("flat"), dense)),)),
    )
    return Network(
        "in", (2, 6, 7), layers, "out", Contract(11, input_levels=4, input_scale=0.25, **contract)
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_the_membrane_is_a_rounded_product_then_a_rounded_sum(
    isa: str, compare: str, reset: str
) -> None:
    network = small(compare=compare, reset=reset)
    x = frames(network, 5, 3)
    expected = simulate(network, x, 11, Record(None, 5))
    assert differences(run(network, x, isa, Record(None, 5)), expected) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNPIPE_ISA", isa)
        session = PLUGIN.open(network, None)
    membranes = session.plan.run([x.reshape(5, -1)], 11, membranes=5)[4][session.groups["lif"]]
    neuron = network.layer("lif").neuron
    assert isinstance(neuron, LIF)
    v = fused = np.zeros((5, 6, 6, 3), np.float32)
    same = True
    for t in range(11):
        current = expected.currents["lif"][t].reshape(v.shape)
        spike = unpack(expected.spikes["lif"], v.shape[1:])[t]
        once = neuron.decay.astype(np.float64) * fused + current  # rounded once, as an FMA does
        u = dynamics.integrate(v, current, neuron.decay)
        v = dynamics.reset(u, spike, neuron.threshold, neuron.v_reset, reset)
        fused = np.where(spike, v, once).astype(np.float32)
        np.testing.assert_array_equal(membranes[t].reshape(v.shape), v)
        same = same and np.array_equal(v, fused)
    assert not same  # the two can be told apart here


def off_grid() -> Network:
    """A network of 70 and 130 channels whose sums depend on their order."""
    rng = np.random.default_rng(8)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.2, shape).astype(np.float32)

    lif = LIF(np.full((), 0.9, np.float32), np.full((), 0.31, np.float32))
    one = Conv("c1", normal(70, 3, 3, 3), normal(70), (2, 1), (1, 1))
    two = Conv("c2", normal(130, 7, 3, 2), normal(130), (1, 1), (1, 0), (1, 2), 10)
    pool = AvgPool("pool", (3, 2), (2, 1), (1, 0))
    layers = (
        Layer("one", lif, (70, 4, 6), (Synapse("in", (one,)),)),
        Layer("two", lif, (130, 4, 4), (Synapse("one", (two,)),)),
        Layer("sum", Sum(), (130, 2, 3), (Synapse("two", (pool,)),)),
        Layer("out", Sum(), (10,), (Synapse("sum", (Flatten("f"), Dense("d", normal(10, 780)))),)),
    )
    return Network("in", (3, 7, 6), layers, "out", Contract(6))


def test_off_the_grid_neither_batch_nor_machine_changes_a_bit() -> None:
    network = off_grid()
    x = np.random.default_rng(1).normal(0.2, 1, (21, 3, 7, 6)).astype(np.float32)
    whole = run(network, x, WIDEST, Record(None, 21))
    assert 0 < whole.fired["two"].sum() < 21 * 6 * 130 * 16
    for isa in ISAS:
        assert differences(run(network, x, isa, Record(None, 21)), whole) == []
    for size in (1, 4):
        parts = [run(network, x[i : i + size], "", Record(None, size)) for i in range(0, 21, size)]
        assert differences(join(parts), whole) == []
    reference = simulate(network, x, 6, Record(None, 21))
    assert not np.array_equal(reference.currents["two"], whole.currents["two"])  # order matters
    np.testing.assert_allclose(reference.currents["one"], whole.currents["one"], atol=1e-5)


def on_the_grid(operation: Operation) -> Operation:
    """Weights to sixteenths, and means over four."""
    if isinstance(operation, AvgPool):
        return replace(operation, kernel=(2, 2), padding=(0, 0))
    if not isinstance(operation, (Conv, Dense)):
        return operation
    weight = (np.round(operation.weight * 16) / 16).astype(np.float32)
    if operation.bias is None:
        return replace(operation, weight=weight)
    return replace(operation, weight=weight, bias=np.round(operation.bias * 16) / np.float32(16))


def changed(network: Network, change: Callable[[Operation], Operation]) -> Network:
    """The network with every operation changed."""
    layers = []
    for layer in network.layers:
        synapses = tuple(
            replace(synapse, operations=tuple(map(change, synapse.operations)))
            for synapse in layer.synapses
        )
        layers.append(replace(layer, synapses=synapses))
    return replace(network, layers=tuple(layers))


def test_wide_channels_groups_dilation_and_pools_equal_the_reference() -> None:
    network = changed(off_grid(), on_the_grid)
    x = frames(replace(network, contract=replace(network.contract, input_levels=3)), 9, 4)
    record = Record(3, 4)
    expected = simulate(network, x, 6, record)
    assert differences(run(network, x, "", record), expected) == []
    assert expected.fired["two"].any()


def test_chains_of_operations_and_flattened_layers() -> None:
    rng = np.random.default_rng(2)
    conv = Conv("c", dyadic(rng, (5, 2, 2, 2)), dyadic(rng, (5,)), padding=(1, 1))
    chain = (SumPool("p", (2, 2), (1, 2)), conv, AvgPool("q", (2, 1), (1, 1)), Flatten("f"))
    rows = (Dense("d1", dyadic(rng, (7, 100)), dyadic(rng, (7,))), Dense("d2", dyadic(rng, (3, 7))))
    lif = LIF(np.full((), 0.5, np.float32), np.full((), 1.5, np.float32))
    flat = IF(np.full((), 2.0, np.float32))
    layers = (
        Layer("flat", flat, (100,), (Synapse("in", chain), Synapse("in", chain[:3] + chain[3:]))),
        Layer("partly", lif, (2, 42), (Synapse("in", (Flatten("g", 1, 2),)),)),
        Layer("ends", lif, (3,), (Synapse("flat", rows), Synapse("flat", rows))),
        Layer("out", Sum(), (84,), (Synapse("partly", (Flatten("h"),)),)),
    )
    contract = Contract(5, input_levels=4, input_scale=0.5)
    for output in ("out", "ends"):
        network = Network("in", (2, 6, 7), layers, output, contract)
        x = frames(network, 3, 1)
        record = Record(None, 3)
        assert differences(run(network, x, "", record), simulate(network, x, 5, record)) == []


def test_a_run_of_several_tiles_is_the_run_of_one() -> None:
    network = off_grid()
    x = np.random.default_rng(3).normal(0.2, 1, (6, 5, 3, 7, 6)).astype(np.float32)
    plan: Any = PLUGIN.open(network, None).plan
    flat = np.ascontiguousarray(x.reshape(6, 5, -1))
    whole = plan.run([flat], 6, spikes=3, currents=4, membranes=2, tile=5)
    for tile in (1, 2, 3):
        parts = plan.run([flat], 6, spikes=3, currents=4, membranes=2, tile=tile)
        np.testing.assert_array_equal(parts[0], whole[0])
        for one, other in zip(parts[1:], whole[1:], strict=True):
            assert one.keys() == other.keys()
            for group, values in one.items():
                np.testing.assert_array_equal(values, other[group])


NOT_HERE = (*FLOAT_ONLY, Delay, CubaLIF)


def integers(network: Network, seed: int, host: bool) -> Network:
    """The same shapes in Loihi's integers: even weights, biases, thresholds and leaks at random.

    With ``host`` the first layer keeps its floats.
    """
    rng = np.random.default_rng(seed)

    def whole(operation: Operation) -> Operation:
        if isinstance(operation, AvgPool):
            return SumPool(operation.name, operation.kernel, operation.stride, operation.padding)
        if not isinstance(operation, (Conv, Dense)):
            return operation
        weight = (rng.integers(-128, 128, operation.weight.shape) * 2).astype(np.float32)
        bias = (rng.integers(-4096, 4096, len(weight)) * 4 / 64).astype(np.float32)
        return replace(operation, weight=weight, bias=None if operation.bias is None else bias)

    layers = list(changed(network, whole).layers)
    for index, layer in enumerate(layers):
        if isinstance(layer.neuron, LIF | IF):
            dv = rng.integers(0, 4097, decay_of(layer.neuron).shape)
            threshold = rng.integers(1, 900, layer.neuron.threshold.shape).astype(np.float32)
            neuron = LIF(((4096 - dv) / 4096).astype(np.float32), threshold)
            layers[index] = replace(layer, neuron=neuron)
    if host:
        layers[0] = replace(layers[0], synapses=network.layers[0].synapses)
    scales = {layers[0].name: 300} if host else {}
    arithmetic = Integer(8, {layer.name: 2 for layer in layers}, scales)
    contract = replace(network.contract, arithmetic=arithmetic, compare="gt", reset="value")
    if not host:
        contract = replace(contract, input_scale=1.0)
    return replace(network, layers=tuple(layers), contract=contract)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    networks(v_reset=False, branches=False, without=NOT_HERE),
    st.integers(1, 5),
    st.integers(0, 2**20),
    st.booleans(),
    st.booleans(),
    st.sampled_from(ISAS),
)
def test_integer_networks_are_the_references(
    network: Network, samples: int, seed: int, per_step: bool, host: bool, isa: str
) -> None:
    network = integers(network, seed, host)
    steps = network.contract.steps
    x = frames(network, samples, seed, steps if per_step else None)
    record = Record(2, samples)
    expected = simulate(network, x, steps, record)
    assert differences(run(network, x, isa, record), expected) == []
    assert expected.outputs.dtype == np.int32


def test_integer_sums_that_join_two_branches() -> None:
    neuron = LIF(np.full((), 3000 / 4096, np.float32), np.full((2, 1, 1), 9, np.float32))
    conv = Conv("c", np.array([[[[3.0]]], [[[-5.0]]]], np.float32))
    dense = Dense(
        "d", np.array([[2, -4, 6, 8, -2, 0, 2, 2]], np.float32), np.array([0.5], np.float32)
    )
    layers = (
        Layer("a", neuron, (2, 2, 2), (Synapse("in", (conv,)),)),
        Layer("b", Sum(), (2, 2, 2), (Synapse("a"), Synapse("a"))),
        Layer("c", Sum(), (1,), (Synapse("b", (Flatten("f"), dense)),)),
    )
    contract = Contract(6, input_levels=9, arithmetic=Integer(8, {"a": 0, "b": 0, "c": 0}))
    network = Network("in", (1, 2, 2), layers, "c", contract)
    x = frames(network, 4, 2)
    expected = simulate(network, x, 6, Record(None, 4))
    assert np.unique(expected.outputs).size > 2
    assert differences(run(network, x, "", Record(None, 4)), expected) == []


def refusal(network: Network, x: Any = None, runtime: Any = PLUGIN) -> RequestError:
    def attempt() -> None:
        runtime.open(network, None).run(x, network.contract.steps)

    with pytest.raises(RequestError) as caught:
        attempt()
    return caught.value


def test_wrong_inputs_are_refused() -> None:
    network = small()
    good = frames(network, 2, 0)
    for bad, word in [
        (good.astype(np.float64), "float64"),
        (good[:, :1], "shape"),
        (np.repeat(good[None], 3, axis=0), "3 steps"),
        (np.where(good > 0, np.float32(np.nan), good), "finite"),
        (np.where(good > 0, np.float32(-np.inf), good), "finite"),
    ]:
        error = refusal(network, bad)
        assert error.code == "E_INPUT"
        assert word in error.message
    with pytest.raises(RequestError, match="1 step or more"):
        PLUGIN.open(network, None).run(good, 0)


def with_first(network: Network, **changes: Any) -> Network:
    first = replace(network.layers[0], **changes)
    return replace(network, layers=(first, *network.layers[1:]))


def test_networks_it_cannot_run_are_refused_by_name() -> None:
    network = small()
    (synapse,) = network.layers[0].synapses
    (conv,) = synapse.operations
    assert isinstance(conv, Conv)
    nan = replace(conv, weight=np.where(conv.weight > 0, np.float32(np.nan), conv.weight))
    error = refusal(with_first(network, synapses=(replace(synapse, operations=(nan,)),)))
    assert (error.code, "not finite" in error.message) == ("E_ENGINE", True)
    late = (replace(synapse, operations=(Delay("late", 2**24 + 1), conv)),)
    error = refusal(with_first(network, synapses=late))
    assert (error.code, "delay is too large" in error.message) == ("E_ENGINE", True)
    error = refusal(with_first(network, synapses=(replace(synapse, operations=()),)))
    assert (error.code, "[2, 6, 7]" in error.message) == ("E_SHAPE", True)
    error = refusal(with_first(network, neuron=object()))
    assert (error.code, "does not know" in error.message) == ("E_UNSUPPORTED", True)


@settings(max_examples=1, derandomize=True, deadline=None)
@given(networks(v_reset=False, branches=False, max_layers=1, without=NOT_HERE))
def test_integers_that_are_none_are_refused(network: Network) -> None:
    network = integers(network, 0, host=False)
    x = frames(network, 1, 0)
    assert refusal(network, x + np.float32(0.5)).code == "E_INPUT"
    assert refusal(network, x + np.float32(1000)).code == "E_INPUT"
    (synapse,) = network.layers[0].synapses
    *others, linear = synapse.operations
    assert isinstance(linear, (Conv, Dense))
    half = replace(linear, weight=linear.weight + np.float32(0.5))
    error = refusal(with_first(network, synapses=(replace(synapse, operations=(*others, half)),)))
    assert (error.code, "whole numbers" in error.message) == ("E_RANGE", True)
    huge = replace(linear, weight=linear.weight + np.float32(2**22))
    error = refusal(with_first(network, synapses=(replace(synapse, operations=(*others, huge)),)))
    assert (error.code, "may reach" in error.message) == ("E_ENGINE", True)
    pooled = (AvgPool("q", (1, 1), (1, 1)), *synapse.operations)
    mean = with_first(network, synapses=(replace(synapse, operations=pooled),))
    assert "no mean" in refusal(mean).message
    assert "runtime 'loihi'" in refusal(mean, runtime=LOIHI).message


def test_loihi_runs_integers_only() -> None:
    error = refusal(small(), runtime=LOIHI)
    assert (error.code, "float32" in error.message) == ("E_UNSUPPORTED", True)
    neuron = LIF(np.full((), 0.5, np.float32), np.full((), 7, np.float32))
    dense = Dense("d", np.array([[8.0, -2.0]], np.float32), np.array([1 / 64], np.float32))
    layers = (Layer("a", neuron, (1,), (Synapse("in", (dense,)),)),)
    network = Network("in", (2,), layers, "a", Contract(3, arithmetic=Integer(8, {"a": 0})))
    x = np.array([[1, 0], [1, 1], [0, 0]], np.float32)
    expected = simulate(network, x, 3, Record(None, 3))
    trace = LOIHI.open(network, None).run(x, 3, Record(None, 3))
    assert differences(trace, expected) == []
    np.testing.assert_array_equal(trace.outputs[..., 0], [[1, 0, 0], [1, 1, 0], [1, 0, 0]])


def test_an_engine_that_is_not_built_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if "_engine" in (fromlist or ()):
            raise ImportError("no such module")
        return find(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CouldNotRunError, match="pip install") as caught:
        PLUGIN.open(small(), None)
    assert caught.value.code == "E_MISSING"


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNPIPE_ISA", "v9")
    assert "v9" in refusal(small()).message
