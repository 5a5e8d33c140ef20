"""The extension by itself: order of sums, integer steps, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snnpipe.network.contract import Contract
from snnpipe.network.dynamics import IntegerCell, State
from snnpipe.network.layers import Conv
from snnpipe.network.linear import apply

engine = pytest.importorskip(
    "snnpipe.deploy.engine._engine", reason="the event engine is not built here"
)
WIDEST = engine.build_info()["isa"]
ISAS = ["base", "v3", "v4"][: 1 + ["base", "v3", "v4"].index(WIDEST)]
ONE = np.ones(1, np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_build_info_says_what_was_built() -> None:
    info = engine.build_info()
    assert set(info) == {"compiler", "flags", "isa", "interface"}
    assert info["interface"] == engine.INTERFACE


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (1, 2)])
def test_a_sum_is_taken_in_the_order_ky_kx_channel(isa: str, dilation: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (1, 70, 5, 6)).astype(np.float32)
    x[rng.random(x.shape) < 0.4] = 0
    weight = rng.normal(0, 1, (66, 70, 3, 2)).astype(np.float32)
    bias = rng.normal(0, 1, 66).astype(np.float32)
    conv = Conv("c", weight, bias, (2, 1), (1, 2), dilation)
    shape = apply(conv, x).shape[1:]
    b = engine.FloatBuilder()
    source, target = b.input((70, 5, 6)), b.sum(shape)
    b.conv(source, target, weight, bias, stride=(2, 1), padding=(1, 2), dilation=dilation)
    found = b.build(target, isa).run([x.reshape(1, -1)], 1)[0][0, 0].reshape(shape)
    padded = np.pad(x[0], ((0, 0), (1, 1), (2, 2)))
    total: np.ndarray = np.zeros(shape, np.float32)
    for ky in range(3):
        for kx in range(2):
            for c in range(70):
                y0, x0 = ky * dilation[0], kx * dilation[1]
                seen = padded[c, y0 : y0 + 2 * shape[1] - 1 : 2, x0 : x0 + shape[2]]
                total = total + seen * weight[:, c, ky, kx, None, None]
    np.testing.assert_array_equal(found, total + bias[:, None, None])
    assert not np.array_equal(found, apply(conv, x)[0])  # another order rounds otherwise


@pytest.mark.parametrize("shape", [(3, 1, 1), (70, 1, 1), (2, 3, 4), (66, 2, 1)])
def test_an_identity_and_a_pool_take_the_input_as_it_is(shape: tuple[int, int, int]) -> None:
    x = np.arange(1, 1 + 2 * np.prod(shape), dtype=np.float32).reshape(2, -1)
    b = engine.FloatBuilder()
    source = b.input(shape)
    middle = b.sum(shape)
    b.identity(source, middle)
    b.pool(source, middle, kernel=(1, 1), stride=(1, 1), mean=True)
    flat = b.sum((int(np.prod(shape)), 1, 1))
    b.identity(middle, flat)
    b.identity(source, flat)
    outputs, fired, *_ = b.build(flat).run([x], 3)
    np.testing.assert_array_equal(outputs, np.stack([3 * x] * 3))
    np.testing.assert_array_equal(fired[middle], np.full((3, x.shape[1]), 2))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(ISAS),
    st.booleans(),
    st.sampled_from([40, 3000, 60_000]),
    st.sampled_from(["gt", "ge"]),
    st.sampled_from(["value", "subtract"]),
    st.booleans(),
)
def test_an_integer_step_is_the_one_of_dynamics(
    seed: int, isa: str, memory: bool, size: int, compare: Any, reset: Any, counted: bool
) -> None:
    rng = np.random.default_rng(seed)
    steps, n, inputs = 7, 67, 4
    weight = rng.integers(-size, size + 1, (n, inputs)).astype(np.int32)
    if not memory:
        weight *= 60
    du = rng.integers(0, 4096, n).astype(np.int32) if memory else whole(4095)
    dv = rng.integers(0, 4097, n).astype(np.int32)
    threshold = rng.integers(0, 2 * size, n).astype(np.int32)
    bias = rng.integers(-(2**19), 2**19, n).astype(np.int32)
    x = rng.integers(0, 2, (steps, 2, inputs)).astype(np.int32)
    injected = rng.integers(-(2**19), 2**19, (2, n)).astype(np.int32)
    b = engine.IntegerBuilder()
    source, current = b.input((inputs, 1, 1), 1), b.input((n, 1, 1), 2**19)
    group = b.spiking((n, 1, 1), du, dv, threshold, bias, compare, reset)
    b.dense(source, group, weight)
    b.inject(current, group)
    out, _, _, currents, membranes, active, lost = b.build(group, isa).run(
        [x, injected], steps, currents=2, membranes=2, overflows=[group] if counted else []
    )
    cell = IntegerCell(Contract(1, compare=compare, reset=reset), du, dv, threshold.astype(int))
    state, overflows = State(np.int64(0), np.int64(0)), 0
    for t in range(steps):
        total = x[t].astype(np.int64) @ weight.T.astype(np.int64)
        overflows += int(cell.lost(state, total, bias + injected.astype(np.int64)).sum())
        state = cell.membrane(state, total, bias + injected.astype(np.int64))
        spike = cell.decide(state.v)
        state = cell.settle(state, spike)
        np.testing.assert_array_equal(currents[group][t], state.i + bias + injected)
        np.testing.assert_array_equal(out[t], spike)
        np.testing.assert_array_equal(membranes[group][t], state.v)
        assert active[group][t] == np.count_nonzero((currents[group][t] != 0) | spike)
    assert lost == ({group: overflows} if counted else {})


Call = Callable[[], Any]


def float_call(**changes: Any) -> Call:
    """A small legal net, but for ``changes``."""
    arrays = {
        "weight": np.ones((2, 1, 3, 3), np.float32),
        "bias": np.ones(2, np.float32),
        "decay": ONE,
        "threshold": ONE,
        "v_reset": ONE,
        "x": np.ones((2, 16), np.float32),
        "compare": "gt",
        "driven": None,
        "filtered": None,
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
        "shape": (2, 4, 4),
        "steps": 2,
    } | changes

    def call() -> Any:
        b = engine.FloatBuilder()
        source = b.input((1, 4, 4))
        group = b.spiking(
            arrays["shape"],
            arrays["decay"],
            arrays["threshold"],
            arrays["v_reset"],
            arrays["compare"],
            "value",
            arrays["driven"],
            arrays["filtered"],
        )
        options = {name: arrays[name] for name in ("stride", "padding", "dilation", "groups")}
        b.conv(source, group, arrays["weight"], arrays["bias"], **options)
        return b.build(group).run([arrays["x"]], arrays["steps"])

    return call


def spoilt(shape: tuple[int, ...], value: float) -> np.ndarray:
    array = np.ones(shape, np.float32)
    array.flat[-1] = value
    return array


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weight": np.ones((2, 1, 3, 3))}, "float64"),
        ({"weight": np.ones((2, 1, 3, 3), np.float32)[:, :, ::-1]}, "contiguous"),
        ({"weight": np.ones((2, 1, 3, 3), ">f4")}, "float32"),
        ({"weight": np.ones((2, 9), np.float32)}, "4 axes"),
        ({"weight": np.ones((2, 2, 3, 3), np.float32)}, r"expected \(2, 1, 3, 3\)"),
        ({"weight": spoilt((2, 1, 3, 3), np.nan)}, "weight: holds a value that is not finite"),
        ({"weight": spoilt((2, 1, 3, 3), np.inf)}, "not finite"),
        ({"bias": np.ones(3, np.float32)}, r"bias has shape \(3\)"),
        ({"bias": spoilt((2,), np.nan)}, "bias: holds"),
        ({"threshold": np.ones(3, np.float32)}, "'threshold': has 3 values"),
        ({"threshold": np.ones(0, np.float32)}, "has 0 values"),
        ({"decay": spoilt((2,), -np.inf)}, "'decay'"),
        ({"compare": ">"}, "gt or ge"),
        ({"driven": (ONE, spoilt((2,), np.nan))}, "'leak'"),
        ({"filtered": (np.ones(3, np.float32), ONE)}, "'synaptic_decay': has 3 values"),
        ({"stride": (0, 1)}, "1 or more"),
        ({"dilation": (1, 0)}, "1 or more"),
        ({"padding": (1, 2)}, "its windows make 6"),
        ({"padding": (2**40, 1)}, "too large"),
        ({"groups": 0}, "do not divide"),
        ({"groups": 2}, "do not divide"),
        ({"shape": (2, 0, 4)}, "not usable"),
        ({"shape": (2**24, 2**24, 2**24)}, "2\\^30"),
        ({"x": np.ones((2, 16))}, "float64"),
        ({"x": np.ones((2, 17), np.float32)}, "N = 16"),
        ({"x": np.ones((3, 2, 16), np.float32)}, "T = 2"),
        ({"x": np.ones((2, 1, 4, 4), np.float32)}, "N = 16"),
        ({"x": spoilt((2, 16), np.nan)}, "sample 1"),
        ({"steps": 0}, "1 or more"),
    ],
)
def test_bad_arrays_are_refused(change: dict[str, Any], word: str) -> None:
    outputs = float_call()()[0]
    assert outputs.shape == (2, 2, 32)
    with pytest.raises(ValueError, match=word):
        float_call(**change)()


def test_a_padding_as_large_as_the_kernel_sees_nothing_outside() -> None:
    b = engine.FloatBuilder()
    source, target = b.input((1, 2, 2)), b.sum((1, 6, 6))
    b.conv(source, target, np.ones((1, 1, 3, 3), np.float32), padding=(3, 3))
    (image,) = b.build(target).run([np.ones((1, 4), np.float32)], 1)[0][0].reshape(1, 6, 6)
    expected = np.outer([0, 1, 2, 2, 1, 0], [0, 1, 2, 2, 1, 0])
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"du": whole(-1)}, "0 to 4095"),
        ({"dv": whole(4097)}, "0 to 4096"),
        ({"threshold": whole(2**17 + 1)}, "131072"),
        ({"compare": ">"}, "gt or ge"),
        ({"reset": "late"}, "value or subtract"),
        ({"shift": 25}, "expected -24 to 24"),
        ({"shift": 22, "limit": 2**5}, "may reach"),
        ({"overflows": [0]}, "group 0 has no sums"),
        ({"bias": whole(2**28 + 1)}, "268435456"),
        ({"weight": np.full((1, 2), 2**22, np.int32), "limit": 3}, "may reach"),
        ({"weight": np.full((1, 2), 2**17, np.int32), "du": whole(7), "limit": 2}, "may reach"),
        ({"weight": np.ones((1, 2), np.int64)}, "int64"),
        ({"limit": -1}, "between 0 and 2"),
        ({"x": whole(2, 0).reshape(1, 2)}, "beyond the limit"),
        ({"x": whole(-(2**31), 0).reshape(1, 2)}, "beyond the limit"),
    ],
)
def test_bad_integers_are_refused(change: dict[str, Any], word: str) -> None:
    def call(changes: dict[str, Any]) -> Any:
        values = {
            "du": whole(4095),
            "dv": whole(0),
            "threshold": whole(9),
            "bias": whole(0),
            "weight": np.full((1, 2), 5, np.int32),
            "limit": 1,
            "x": whole(1, 1).reshape(1, 2),
            "compare": "gt",
            "reset": "value",
            "shift": 0,
            "overflows": [],
        } | changes
        b = engine.IntegerBuilder()
        source = b.input((2, 1, 1), values["limit"])
        own = (values[k] for k in ("du", "dv", "threshold", "bias", "compare", "reset"))
        group = b.spiking((1, 1, 1), *own)
        b.dense(source, group, values["weight"], shift=values["shift"])
        return b.build(group).run([values["x"]], 3, overflows=values["overflows"])[0].tolist()

    assert call({}) == [[[1]], [[1]], [[1]]]
    with pytest.raises(ValueError, match=word):
        call(change)


def test_edges_lead_forward_between_groups_that_fit() -> None:
    b = engine.FloatBuilder()
    source = b.input((2, 3, 3))
    one, two = b.sum((2, 3, 3)), b.sum((18, 1, 1))
    assert len(b) == 3
    for bad in [(one, one), (two, one), (one, source), (one, 9)]:
        with pytest.raises(ValueError, match="group"):
            b.identity(*bad)
    with pytest.raises(ValueError, match="does not fit"):
        b.identity(source, b.sum((18, 2, 1)))
    with pytest.raises(ValueError, match="'factor': has 3 values"):
        b.identity(source, one, np.ones(3, np.float32))
    with pytest.raises(ValueError, match="delay is too large"):
        b.identity(source, one, delay=2**24 + 1)
    with pytest.raises(ValueError, match="keeps the number of channels"):
        b.pool(source, b.sum((3, 3, 3)), kernel=(1, 1), stride=(1, 1))
    with pytest.raises(ValueError, match="into a flat group"):
        b.dense(source, one, np.ones((2, 18), np.float32))
    with pytest.raises(ValueError, match="no population of neurons"):
        b.build(source)
    i = engine.IntegerBuilder()
    source, target = i.input((2, 2, 2), 1), i.sum((2, 2, 2), whole(0))
    with pytest.raises(ValueError, match="no mean"):
        i.pool(source, target, kernel=(1, 1), stride=(1, 1), mean=True)
    with pytest.raises(ValueError, match="no factor"):
        i.identity(source, target, whole(2))
    i.inject(source, target)
    with pytest.raises(ValueError, match="may be injected"):
        i.inject(source, target)


def looped(loops: list[tuple[int, int]], delay: int = 1) -> Any:
    """Input, a sum that adds up all it has seen, and its output doubled."""
    b = engine.FloatBuilder()
    source, total, twice = b.input((3, 1, 1)), b.sum((3, 1, 1)), b.sum((3, 1, 1))
    b.identity(source, total)
    b.identity(total, total, delay=delay)
    b.identity(total, twice, 2 * ONE)
    return b.build(twice, loops=loops)


def test_a_loop_runs_step_by_step() -> None:
    x = np.arange(1, 4, dtype=np.float32)[None]
    for loops in ([(1, 1)], [(1, 2)]):
        found = looped(loops).run([x], 4)[0][:, 0]
        np.testing.assert_array_equal(found, 2 * x * np.arange(1, 5)[:, None])
    found = looped([(1, 1)], delay=3).run([np.repeat(x[None], 5, axis=0)], 5)[0][:, 0]
    np.testing.assert_array_equal(found, 2 * x * np.array([1, 1, 1, 2, 2])[:, None])


@pytest.mark.parametrize(
    ("loops", "word"),
    [
        ([], "group 1: is fed by group 1"),
        ([(2, 2)], "group 1: is fed by group 1"),
        ([(0, 1)], "input"),
        ([(1, 3)], "no ascending range"),
        ([(2, 1)], "no ascending range"),
        ([(1, 2), (2, 2)], "no ascending range"),
    ],
)
def test_wrong_loops_are_refused(loops: list[tuple[int, int]], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        looped(loops)


def test_a_delayed_edge_brings_its_bias_alone_until_the_first_value_comes() -> None:
    x = np.array([[3, -1]], np.float32)
    weight, bias = np.array([[2, 0], [0, 4]], np.float32), np.array([0.5, 0.25], np.float32)
    b = engine.FloatBuilder()
    source, target = b.input((2, 1, 1)), b.sum((2, 1, 1))
    b.dense(source, target, weight, bias, delay=2)
    found = b.build(target).run([x], 4)[0][:, 0]
    whole = bias + np.array([6, -4])
    np.testing.assert_array_equal(found, [bias, bias, whole, whole])


@pytest.mark.parametrize("isa", ISAS)
def test_a_leaky_group_emits_its_membrane(isa: str) -> None:
    half = np.full(1, 0.5, np.float32)
    b = engine.FloatBuilder()
    source = b.input((66, 1, 1))
    group = b.leaky((66, 1, 1), half, (2 * ONE, half), (half, 4 * ONE))
    b.identity(source, group)
    found = b.build(group, isa).run([np.ones((1, 66), np.float32)], 3, currents=1)
    i = np.array([4, 6, 7])  # i/2 + 4
    v = np.array([8.5, 16.75, 22.875])  # v/2 + 2i + 0.5
    np.testing.assert_array_equal(found[0][:, 0], np.repeat(v[:, None], 66, axis=1))
    assert (2 * i + 0.5 == v - np.array([0, *v[:-1]]) / 2).all()
    assert found[1][group].tolist() == [[1] * 66] * 3
    assert (found[3][group] == 1).all()
    assert group not in found[2]


def test_a_silent_batch_and_an_empty_one() -> None:
    outputs, fired, spikes, *_, active, _ = float_call(
        x=np.zeros((2, 16), np.float32), bias=np.zeros(2, np.float32)
    )()
    assert not outputs.any()
    assert not fired[1].any()
    assert not spikes[1].any()
    assert not active[1].any()
    outputs, fired, *_ = float_call(x=np.zeros((0, 16), np.float32))()
    assert outputs.shape == (2, 0, 32)
    assert not fired[1].any()
