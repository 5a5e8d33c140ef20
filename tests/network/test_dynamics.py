"""The step of every neuron: golden vectors of Lava, and one function for numpy and torch."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snnpipe.network import dynamics
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.dynamics import Cell, State
from snnpipe.network.integer_sums import carry
from snnpipe.network.layers import Conv, Dense
from snnpipe.network.linear import apply
from snnpipe.network.loihi import effective_weight, sign_mode, wrap24
from snnpipe.network.neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Neuron,
    Spiking,
    Threshold,
    parameters,
)

# Produced by Lava 0.10.0, PyLifModelBitAcc and PyLifResetModelBitAcc under fixed_pt: synaptic sums
# into one neuron per step, and what s, u, v are after steps 1, 2, ...
# (name, du, dv, threshold, bias in membrane units, sums, spikes, u, v)
LIF_VECTORS: list[tuple[str, int, int, int, int, list[int], list[int], list[int], list[int]]] = [
    ("G1", 2047, 0, 10, 0, [5, 0, 0, 0, 0, 0], [0] * 6,
     [320, 160, 80, 40, 20, 10], [320, 480, 560, 600, 620, 630]),
    ("G2", 0, 0, 10, 0, [-1, 0, 0, 0], [0] * 4, [-64, -63, -62, -61], [-64, -127, -189, -250]),
    ("G3", 99, 128, 100, 0, [1, 0, 0, 0, 0, 0], [0] * 6,
     [64, 62, 60, 58, 56, 54], [64, 124, 180, 232, 280, 325]),
    ("G3'", 99, 128, 100, 0, [-1, 0, 0, 0, 0, 0], [0] * 6,
     [-64, -62, -60, -58, -56, -54], [-64, -124, -180, -232, -280, -325]),
    ("G4", 4095, 0, 10, 0, [10, 0, 1, 0], [0, 0, 1, 0], [640, 0, 64, 0], [640, 640, 0, 0]),
    ("G4'", 4095, 0, 10, 0, [11, 0, 1, 0], [1, 0, 0, 0], [704, 0, 64, 0], [0, 0, 64, 64]),
    ("G5", -1, 4096, 131071, 0, [131072, 0, 0], [1, 1, 1], [8388608] * 3, [0, 0, 0]),
    ("G5'", -1, 4096, 131071, 0, [131073, 0, 0], [0, 0, 0], [-8388544] * 3, [-8388544] * 3),
    ("G5''", -1, 4096, 131071, 0, [400000, 0, 0], [1, 0, 0],
     [8822784, -7954432, -7954432], [0, -7954432, -7954432]),
    ("G6", 4095, 0, 131071, 0, [131071] * 3, [0, 1, 0], [8388544] * 3, [8388544, 0, 8388544]),
    ("G6'", 4095, 0, 131071, 0, [-131071] * 3, [0, 0, 0],
     [-8388544] * 3, [-8388544, -8388607, -8388607]),
    ("G7", 4095, 0, 100, 100 << 6, [0, 0, 0], [0, 1, 0], [0] * 3, [6400, 0, 6400]),
    ("G7'", 4095, 0, 100, -3 >> 1, [0, 0, 0], [0, 0, 0], [0] * 3, [-2, -4, -6]),
    ("G8", 4095, 1, 1000, 0, [-2, 0, 0, 0, 0], [0] * 5,
     [-128, 0, 0, 0, 0], [-128, -127, -126, -125, -124]),
    ("G9", 4095, 4096, 100, 0, [3, 2, 0, 0], [0] * 4, [192, 128, 0, 0], [192, 128, 0, 0]),
]  # fmt: skip

# LIFReset sets u and v to zero at the start of the steps listed, counted from 1.
RESET_VECTORS = [
    ("G10", 4095, 0, 100, [3] * 9, {1, 5, 9}, [0] * 9,
     [192] * 9, [192, 384, 576, 768, 192, 384, 576, 768, 192]),
    ("G11", -1, 0, 20, [3] * 9, {4, 8}, [0, 0, 0, 0, 0, 0, 1, 0, 0],
     [192, 384, 576, 192, 384, 576, 768, 192, 384],
     [192, 576, 1152, 192, 576, 1152, 0, 192, 576]),
]  # fmt: skip


def _run(
    du: Any, dv: int, threshold: int, bias: int, sums: Any, zeroed: set[int], make: Any
) -> tuple[list[Any], list[Any], list[Any]]:
    """Spikes, u and v per step; ``make`` gives an int64 array of the library under test."""
    u, v = make(sums[0]) * 0, make(sums[0]) * 0
    spikes, currents, membranes = [], [], []
    for step, total in enumerate(sums, 1):
        if step in zeroed:
            u, v = u * 0, v * 0
        u = dynamics.loihi_current(u, make(total), make(du))
        v = dynamics.loihi_integrate(v, u, bias, dv)
        spike = dynamics.loihi_decide(v, make(threshold))
        v = dynamics.loihi_reset(v, spike)
        for into, value in ((spikes, spike), (currents, u), (membranes, v)):
            into.append(np.asarray(value).astype(np.int64).tolist())
    return spikes, currents, membranes


MAKERS = {
    "numpy": lambda x: np.asarray(x, np.int64),
    "torch": lambda x: torch.as_tensor(x, dtype=torch.int64),
}


@pytest.mark.parametrize("library", MAKERS)
@pytest.mark.parametrize("vector", LIF_VECTORS, ids=[v[0] for v in LIF_VECTORS])
def test_lif_is_lavas(vector: Any, library: str) -> None:
    _, du, dv, threshold, bias, sums, *expected = vector
    assert list(_run(du, dv, threshold, bias, sums, set(), MAKERS[library])) == expected


@pytest.mark.parametrize("library", MAKERS)
@pytest.mark.parametrize("vector", RESET_VECTORS, ids=[v[0] for v in RESET_VECTORS])
def test_lif_with_state_zeroed_is_lavas_lif_reset(vector: Any, library: str) -> None:
    _, du, dv, threshold, sums, zeroed, *expected = vector
    assert list(_run(du, dv, threshold, 0, sums, zeroed, MAKERS[library])) == expected


@pytest.mark.parametrize("library", MAKERS)
def test_g13_two_neurons_with_their_own_du(library: str) -> None:
    sums = [[3, 3], [0, 0], [0, 0], [0, 0]]  # Lava 0.10.0, G13
    spikes, u, v = _run([4095, 2047], 0, 1000, 0, sums, set(), MAKERS[library])
    assert spikes == [[0, 0]] * 4
    assert [list(x) for x in zip(*u, strict=True)] == [[192, 0, 0, 0], [192, 96, 48, 24]]
    assert [list(x) for x in zip(*v, strict=True)] == [[192] * 4, [192, 288, 336, 360]]


def test_a_floor_in_place_of_truncation_would_fail_g8() -> None:
    v, floored = -128, []
    for _ in range(5):
        floored.append(v)
        v = (v * 4095) >> 12
    assert floored != LIF_VECTORS[13][-1]


def synaptic_sum(
    weight: Any, x: Any, bits: int = 8, exponent: int = 0, graded: bool = False
) -> Any:
    """A dense synapse that Lava truncates, (B, out): what our legal networks have no need of."""
    legal = Dense("fc", effective_weight(weight, bits).astype(np.float32))
    messages = np.asarray(x, np.int64) if graded else (np.asarray(x) != 0).astype(np.int64)
    return carry(Integer(bits, {}, {}, {"fc": exponent}), legal, messages)


# Produced by Lava 0.10.0, PyDenseModelBitAcc: one input fires, one output per weight.
DENSE_VECTORS: list[tuple[str, list[int], dict[str, Any], list[int]]] = [
    ("D1", [3, -3, 255, -256, 300, -300, 1, -1], {}, [2, -4, 254, -256, 254, -256, 0, -2]),
    ("D2", [3, 5, 255, 300, 0], {}, [3, 5, 255, 255, 0]),
    ("D3", [-3, -5, -255, -300, 0], {}, [-3, -5, -255, -255, 0]),
    ("D4", [3, -3, 100, -100, 31, -31, 32], {"bits": 4}, [0, -32, 96, -128, 0, -32, 32]),
    ("D5", [3, 100, 31, 17, 16], {"bits": 4}, [0, 96, 16, 16, 16]),
    ("D5'", [-3, -100, -31, -17, -16], {"bits": 4}, [0, -96, -16, -16, -16]),
    ("D6", [4, -6], {"exponent": 3}, [32, -48]),
    ("D7", [4, -6, 10, -10], {"exponent": -2}, [1, -2, 2, -3]),
]


@pytest.mark.parametrize("vector", DENSE_VECTORS, ids=[v[0] for v in DENSE_VECTORS])
def test_dense_synapse_is_lavas(vector: Any) -> None:
    _, weights, options, expected = vector
    total = synaptic_sum(np.array(weights)[:, None], np.ones((1, 1)), **options)
    assert total.tolist() == [expected]


@pytest.mark.parametrize(("bits", "expected"), [(8, [26, 0]), (0, [-2, 0])], ids=["D8", "D9"])
def test_graded_messages_are_lavas(bits: int, expected: list[int]) -> None:
    weight, inputs = np.array([[4, -6]]), np.array([[2, -3], [0, 0]])
    assert synaptic_sum(weight, inputs, graded=bits > 0)[:, 0].tolist() == expected


def test_a_matrix_without_a_positive_weight_is_inhibitory() -> None:
    # Lava 0.10.0: Dense([[-256, -128]], num_weight_bits=1, weight_exp=-6) gives -2, -2
    weight = np.array([[-256], [-128]])
    assert sign_mode(weight) == "inhibitory"
    assert synaptic_sum(weight, np.ones((1, 1)), 1, -6).tolist() == [[-2, -2]]


def _as_torch_kernel(lava: np.ndarray) -> np.ndarray:
    """(Cout, Kx, Ky, Cin), convolved, to (Cout, Cin, Kh, Kw), correlated."""
    return lava.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1].astype(np.float32)


def test_c1_convolution_is_lavas() -> None:
    # Lava 0.10.0, PyConvModelFixed: W[0,:,:,0], input (X, Y, C) = (4, 3, 1), event at (1, 1)
    lava = np.array([[1, 2], [3, 4], [5, 300]])[None, :, :, None]
    x = np.zeros((4, 3, 1))
    x[1, 1, 0] = 1
    out = apply(Conv("c", _as_torch_kernel(lava)), x.transpose(2, 1, 0)[None])
    assert wrap24(out.astype(np.int64))[0, 0].T.tolist() == [[3, 4], [5, 300]]


def test_c2_graded_input_has_no_exponent() -> None:
    # Lava 0.10.0: the kernel of C1, 7 at (0, 0), message bits 8, weight_exp 2 (ignored by Conv)
    lava = np.array([[1, 2], [3, 4], [5, 300]])[None, :, :, None]
    x = np.zeros((4, 3, 1))
    x[0, 0, 0] = 7
    out = apply(Conv("c", _as_torch_kernel(lava)), x.transpose(2, 1, 0)[None])
    assert wrap24(out.astype(np.int64))[0, 0].T.tolist() == [[2100, 0], [0, 0]]


def test_c3_convolution_wraps_at_24_bits() -> None:
    # Lava 0.10.0: a 1x1 kernel of 2^22 and graded inputs 1, 2, 3
    kernel = np.full((1, 1, 1, 1), 2**22, np.float32)
    out = apply(Conv("c", kernel), np.array([[[[1.0, 2.0, 3.0]]]]))
    assert wrap24(out.astype(np.int64)).ravel().tolist() == [4194304, -8388608, -4194304]


@given(
    st.lists(st.integers(-256, 255), min_size=1, max_size=20),
    st.integers(1, 8),
    st.sampled_from(["mixed", "excitatory", "inhibitory"]),
)
@settings(max_examples=50, derandomize=True)
def test_truncation_leaves_its_own_results_alone(weights: list[int], bits: int, sign: Any) -> None:
    once = effective_weight(np.array(weights), bits, sign)
    assert (effective_weight(once, bits, sign) == once).all()
    assert abs(once).max() <= 256


VALUES = st.floats(-4, 4, width=32)
DTYPES = [(np.float32, torch.float32), (np.float64, torch.float64)]


@pytest.mark.parametrize(("plain", "tensor"), DTYPES)
@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("kind", ["value", "subtract"])
@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=30))
@settings(max_examples=15, derandomize=True)
def test_float_step_is_one_for_numpy_and_torch(
    plain: Any, tensor: Any, compare: str, kind: str, draws: list[tuple[float, ...]]
) -> None:
    columns = np.array(draws, plain).T
    columns[3] = columns[0] * columns[1] + columns[2]  # every other threshold is met exactly
    columns[3, ::2] = np.array(draws, plain).T[3, ::2]

    def step(v: Any, decay: Any, current: Any, threshold: Any, rest: Any) -> list[Any]:
        u = dynamics.integrate(v, current, decay)
        spike = dynamics.decide(u, threshold, compare)
        return [u, spike, dynamics.reset(u, spike, threshold, rest, kind)]

    with np.errstate(over="ignore", invalid="ignore"):
        ours = step(*columns)
    theirs = step(*(torch.tensor(c, dtype=tensor) for c in columns))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.tobytes() == other.numpy().tobytes()


RANGES = {
    "decay": (0, 0.9375),
    "synaptic_decay": (0, 0.9375),
    "threshold": (0.125, 2),
    "v_reset": (-1, 1),
    "gain": (-2, 2),
    "synaptic_gain": (-2, 2),
    "leak": (-1, 1),
}
CONTRACTS = [
    Contract(1, compare=compare, reset=reset, reset_time=when)
    for compare in ("gt", "ge")
    for reset, when in (
        ("value", "same_step"), ("subtract", "same_step"), ("subtract", "next_after_decay"),
    )
]  # fmt: skip


@st.composite
def neurons(draw: Any) -> Neuron:
    """A neuron of one number each, now and then without gain and leak."""
    kind = draw(st.sampled_from([LIF, IF, LI, CubaLIF, CubaLI, Threshold]))
    names = {part.name for part in fields(kind)}
    if draw(st.booleans()):
        names -= {"gain", "synaptic_gain", "leak"}
    numbers = {name: draw(st.floats(*RANGES[name], width=32)) for name in sorted(names)}
    return kind(**{name: np.float32(number) for name, number in numbers.items()})


def by_hand(neuron: Neuron, contract: Contract, currents: list[float]) -> list[tuple[Any, bool]]:
    """Membranes before the decision and spikes of one neuron, one float32 operation at a time."""
    own, one, nothing = parameters(neuron), np.float32(1), np.float32(0)
    v = i = owed = nothing
    found = []
    for current in currents:
        u = np.float32(current)
        if not isinstance(neuron, Threshold):
            if isinstance(neuron, CubaLIF | CubaLI):
                kept = own["synaptic_decay"] * i
                i = u = kept + own["synaptic_gain"] * u
            u = own["gain"] * u
            u = u + own.get("leak", nothing)
            kept = own.get("decay", one) * v
            u = kept + u
            u = u - owed
        v, spike, owed = u, False, nothing
        if not isinstance(neuron, LI | CubaLI):
            threshold = own["threshold"]
            spike = bool(u >= threshold if contract.compare == "ge" else u > threshold)
            if spike and contract.late_reset:
                owed = threshold
            elif spike and contract.reset == "subtract":
                v = u - threshold
            elif spike:
                v = own.get("v_reset", nothing)
        assert u.dtype == np.float32
        found.append((u, spike))
    return found


@pytest.mark.parametrize("library", ["numpy", "torch"])
@given(
    neurons(),
    st.sampled_from(CONTRACTS),
    st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=9),
)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_a_cell_is_its_neuron_by_hand(
    library: str, neuron: Neuron, contract: Contract, trains: list[list[float]]
) -> None:
    """Three samples at once; the currents of a step stand in a row."""
    convert: Any = np.asarray if library == "numpy" else torch.tensor
    cell = Cell.of(neuron, contract, lambda values: convert(np.asarray(values)))
    expected = [by_hand(neuron, contract, list(train)) for train in zip(*trains, strict=True)]
    state = State()
    for t, row in enumerate(trains):
        state = cell.membrane(state, convert(np.array(row, np.float32)))
        assert np.asarray(state.v).dtype == np.float32
        assert np.asarray(state.v).tolist() == [train[t][0] for train in expected]
        spike = cell.decide(state.v) if isinstance(neuron, Spiking) else state.v * 0
        assert np.asarray(spike).tolist() == [train[t][1] for train in expected]
        state = cell.settle(state, spike)


def test_the_neurons_of_these_draws_differ_in_every_part() -> None:
    """Each parameter, comparison and reset changes what `by_hand` finds."""
    number = np.float32
    full = CubaLIF(number(0.5), number(0.25), number(1), number(-0.5), *map(number, (2, 0.5, 0.25)))
    train = [1.0, 0.5, 2.0, -1.0, 1.0, 3.0, 0.5]
    plain = Contract(1)
    whole = by_hand(full, plain, train)
    for part in fields(full):
        other = replace(full, **{part.name: number(getattr(full, part.name) + 0.125)})
        assert by_hand(other, plain, train) != whole, part.name
    trains = [by_hand(full, contract, [*train, 1.0]) for contract in CONTRACTS]
    assert trains[0] != trains[1] != trains[2]
    exact = [by_hand(Threshold(number(1)), contract, train) for contract in CONTRACTS]
    assert [train[0][1] for train in exact] == [False] * 3 + [True] * 3


def test_a_recorded_spike_takes_the_place_of_the_decision() -> None:
    neuron = LIF(np.float32(0.5), np.float32(1), np.float32(-2))
    cell = Cell.of(neuron, Contract(1), np.asarray)
    state = cell.membrane(State(), np.float32([0.25, 4]))
    assert cell.settle(state, np.float32([1, 0])).v.tolist() == [-2, 4]
    late = replace(Contract(1), reset="subtract", reset_time="next_after_decay")
    cell = Cell.of(neuron, late, np.asarray)
    state = cell.settle(cell.membrane(State(), np.float32([0.25, 4])), np.float32([1, 0]))
    assert state.v.tolist() == [0.25, 4]
    assert cell.membrane(state, np.float32([0, 0])).v.tolist() == [-0.875, 2]


def test_parts_that_change_nothing_are_left_out() -> None:
    one, half = np.float32(1), np.float32(0.5)
    cell = Cell.of(LIF(half, one), Contract(1), np.asarray)
    assert (cell.gain, cell.leak, cell.synaptic_gain, cell.stateless) == (None, None, None, False)
    driven = Cell.of(IF(one, gain=half), Contract(1), np.asarray)
    assert (driven.gain, driven.leak, driven.decay) == (half, 0.0, 1.0)
    leaking = Cell.of(LI(half, leak=one), Contract(1), np.asarray)
    assert (leaking.gain, leaking.leak, leaking.threshold) == (one, one, None)
    assert Cell.of(Threshold(one), Contract(1), np.asarray).stateless


WORDS = st.integers(-(2**23), 2**23)


@given(
    st.lists(st.tuples(WORDS, WORDS, st.integers(-(2**18), 2**18)), min_size=1, max_size=30),
    st.integers(-1, 4095),
    st.integers(0, 4096),
    st.integers(0, 131071),
    st.integers(-4096, 4095),
    st.integers(-3, 7),
)
@settings(max_examples=40, derandomize=True)
def test_integer_step_is_one_for_numpy_and_torch(
    draws: Any, du: int, dv: int, threshold: int, mantissa: int, exponent: int
) -> None:
    columns = np.array(draws, np.int64).T

    def step(u: Any, v: Any, total: Any) -> list[Any]:
        u = dynamics.loihi_current(u, total, du)
        v = dynamics.loihi_integrate(v, u, dynamics.loihi_bias(mantissa, exponent), dv)
        spike = dynamics.loihi_decide(v, threshold)
        return [u, v, spike, dynamics.loihi_reset(v, spike)]

    ours = step(*columns)
    theirs = step(*(torch.tensor(c) for c in columns))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype.itemsize == other.element_size()
        assert (mine == other.numpy()).all()
    assert abs(ours[1]).max() <= dynamics.V_MAX
