"""Vectors produced by Lava 0.10.0 (`fixed_pt` process models), run as networks in integers on the
reference and on the engine.

Source of all numbers: lava-nc/lava 0.10.0, `PyLifModelBitAcc`, `PyDenseModelBitAcc`,
`PyDelayDenseModelBitAcc` and `PyConvModelFixed` under `Loihi2SimCfg(select_tag="fixed_pt")`. Lava
sends a synapse's sum one step later; here it arrives in the step of its spikes. What no network can
say is left to `test_dynamics`: a current that never decays (du of -1), ternary neurons, bias
exponents below 0; and so are unary messages of graded values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from snnpipe.deploy.runtimes.event import PLUGIN
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.dynamics import loihi_bias
from snnpipe.network.layers import Conv, Delay, Dense, Layer, Network, Synapse
from snnpipe.network.loihi import effective_weight
from snnpipe.network.neurons import LIF, CubaLIF, Sum
from snnpipe.network.shapes import shape_after
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record
from trace_equality import differences

pytest.importorskip("snnpipe.deploy.engine._engine", reason="the event engine is not built here")


def whole(values: Any) -> np.ndarray:
    return np.atleast_1d(np.array(values, np.int32))


def synapses(total: int) -> list[int]:
    """Weights of eight bits and a sign whose sum is ``total``."""
    one = 255 if total > 0 else -256
    return [one] * (total // one) + ([total % one] if total % one else [])


def unary(inputs: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (1, N) and spikes (T, 1, N): at step t fire those that sum up to ``inputs[t]``."""
    wanted = sorted({a for a in inputs if a})
    weights = [synapses(a) for a in wanted] or [[0]]
    owner = np.repeat(np.array([*wanted, 0])[: len(weights)], [len(w) for w in weights])
    fires = np.stack([(owner == a) & (a != 0) for a in inputs])
    return np.concatenate([whole(w) for w in weights])[None], fires[:, None].astype(np.int32)


def network(operations: tuple[Any, ...], neuron: Any, inputs: tuple[int, ...], neurons: Any,
            levels: int = 1, exponents: dict[str, int] | None = None) -> Network:  # fmt: skip
    """One layer on the input."""
    layer = Layer("a", neuron, neurons, (Synapse("in", operations),))
    arithmetic = Integer(8, {"a": 6}, {}, exponents or {})
    contract = Contract(1, input_levels=levels, arithmetic=arithmetic)
    return Network("in", inputs, (layer,), "a", contract)


def lif(
    inputs: list[int], du: Any, dv: Any, vth: int, bias: int = 0, neurons: int = 1
) -> tuple[list[Any], list[Any], list[Any]]:
    """Spikes, u and v of every step; the engine's are the reference's."""
    weight, x = unary(inputs)
    assert abs(weight).max() <= 256
    rows = np.repeat(weight, neurons, axis=0).astype(np.float32)
    own = CubaLIF(
        np.float32((4095 - np.array(du)) / 4096),
        np.float32((4096 - np.array(dv)) / 4096),
        np.float32(vth),
    )
    dense = Dense("w", rows, np.full(neurons, bias / 64, np.float32))
    net = network((dense,), own, rows.shape[1:], (neurons,))
    frames, steps = x.astype(np.float32), len(inputs)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    trace = simulate(net, frames, steps, Record(currents=1),
                     watch=lambda _, t, v, u: seen.append((u[0], v[0])))  # fmt: skip
    s = trace.outputs[:, 0]
    u, v = np.stack([u for u, _ in seen]), np.stack([v for _, v in seen]) * (s == 0)
    session = PLUGIN.open(net, None)
    assert differences(trace, session.run(frames, steps, Record(currents=1))) == []
    membranes = session.plan.run([x], steps, membranes=1)[4][session.groups["a"]]
    np.testing.assert_array_equal(membranes[:, 0], v)
    np.testing.assert_array_equal(trace.currents["a"][:, 0], u + bias)
    s, u, v = (np.squeeze(a.T, 0) if neurons == 1 else a.T for a in (s, u, v))
    return s.tolist(), u.tolist(), v.tolist()


G = {
    "G1": (([5, 0, 0, 0, 0, 0], 2047, 0, 10), [0] * 6, [320, 160, 80, 40, 20, 10],
           [320, 480, 560, 600, 620, 630]),
    "G2": (([-1, 0, 0, 0], 0, 0, 10), [0] * 4, [-64, -63, -62, -61], [-64, -127, -189, -250]),
    "G3": (([1, 0, 0, 0, 0, 0], 99, 128, 100), [0] * 6, [64, 62, 60, 58, 56, 54],
           [64, 124, 180, 232, 280, 325]),
    "G3'": (([-1, 0, 0, 0, 0, 0], 99, 128, 100), [0] * 6, [-64, -62, -60, -58, -56, -54],
            [-64, -124, -180, -232, -280, -325]),
    "G4": (([10, 0, 1, 0], 4095, 0, 10), [0, 0, 1, 0], [640, 0, 64, 0], [640, 640, 0, 0]),
    "G4'": (([11, 0, 1, 0], 4095, 0, 10), [1, 0, 0, 0], [704, 0, 64, 0], [0, 0, 64, 64]),
    "G6": (([131071] * 3, 4095, 0, 131071), [0, 1, 0], [8388544] * 3, [8388544, 0, 8388544]),
    "G6'": (([-131071] * 3, 4095, 0, 131071), [0, 0, 0], [-8388544] * 3,
            [-8388544, -8388607, -8388607]),
    "G8": (([-2, 0, 0, 0, 0], 4095, 1, 1000), [0] * 5, [-128, 0, 0, 0, 0],
           [-128, -127, -126, -125, -124]),
    "G9": (([3, 2, 0, 0], 4095, 4096, 100), [0] * 4, [192, 128, 0, 0], [192, 128, 0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", G)
def test_lif_without_bias(name: str) -> None:
    set_up, s, u, v = G[name]
    assert lif(*set_up) == (s, u, v)


def test_g7_a_bias_alone() -> None:
    s, u, v = lif([0, 0, 0], 4095, 0, 100, bias=100 << 6)
    assert (s, u, v) == ([0, 1, 0], [0, 0, 0], [6400, 0, 6400])


def test_g7_prime_a_bias_shifted_right() -> None:
    s, _, v = lif([0, 0, 0], 4095, 0, 100, bias=loihi_bias(-3, -1))
    assert (s, v) == ([0, 0, 0], [-2, -4, -6])


def test_g10_samples_one_after_the_other_start_afresh() -> None:
    """Lava resets u and v where a sample begins, every 4 steps; here it is a run of its own."""
    parts = [lif([3] * steps, 4095, 0, 100) for steps in (4, 4, 1)]
    assert [x for _, _, v in parts for x in v] == [192, 384, 576, 768, 192, 384, 576, 768, 192]
    assert not any(fired for s, _, _ in parts for fired in s)


def test_g13_two_current_decays_in_one_population() -> None:
    s, u, v = lif([3, 0, 0, 0], [4095, 2047], 0, 1000, neurons=2)
    assert s == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert u == [[192, 0, 0, 0], [192, 96, 48, 24]]
    assert v == [[192, 192, 192, 192], [192, 288, 336, 360]]


def stored(weights: list[int], sign: int, mixed: bool, bits: int) -> np.ndarray:
    """A weight as the chip holds it: sg * ((clip(sg*w) >> k) << k), k = 8 - bits + mixed."""
    k = 8 - bits + mixed
    clipped = np.clip(sign * np.array(weights), -256 * mixed, 255)
    return whole(sign * ((clipped >> k) << k))


def sums(
    operations: tuple[Any, ...],
    x: np.ndarray,
    levels: int = 1,
    exponents: dict[str, int] | None = None,
) -> list[Any]:
    """What each step sends for frames x (T, 1, *shape), in weight units: a `Sum` emits 64 times
    that. The engine's are the reference's."""
    shape = x.shape[2:]
    for operation in operations:
        shape = shape_after(operation, shape)
    net = network(operations, Sum(), x.shape[2:], shape, levels, exponents)
    trace = simulate(net, x.astype(np.float32), len(x))
    assert differences(trace, PLUGIN.open(net, None).run(x.astype(np.float32), len(x))) == []
    assert not (trace.outputs % 64).any()
    sent: list[Any] = (trace.outputs[:, 0] // 64).tolist()
    return sent


def dense(weight: Any) -> Dense:
    return Dense("w", np.atleast_2d(np.float32(weight)))


@pytest.mark.parametrize(
    ("weights", "sign", "mixed", "bits", "sent"),
    [
        # D1
        ([3, -3, 255, -256, 300, -300, 1, -1], 1, True, 8, [2, -4, 254, -256, 254, -256, 0, -2]),
        # D2
        ([3, 5, 255, 300, 0], 1, False, 8, [3, 5, 255, 255, 0]),
        # D3
        ([-3, -5, -255, -300, 0], -1, False, 8, [-3, -5, -255, -255, 0]),
        # D4
        ([3, -3, 100, -100, 31, -31, 32], 1, True, 4, [0, -32, 96, -128, 0, -32, 32]),
        # D5, excitatory and inhibitory
        ([3, 100, 31, 17, 16], 1, False, 4, [0, 96, 16, 16, 16]),
        ([-3, -100, -31, -17, -16], -1, False, 4, [0, -96, -16, -16, -16]),
    ],
)
def test_dense_one_input_a_step(
    weights: list[int], sign: int, mixed: bool, bits: int, sent: list[int]
) -> None:
    weight = stored(weights, sign, mixed, bits)
    assert (effective_weight(np.array(weights), bits) == weight).all()
    x = np.eye(len(weights), dtype=np.int32)[:, None]
    assert sums((dense(weight),), x) == [[s] for s in sent]


@pytest.mark.parametrize(
    ("weights", "exponent", "sent"),
    [([4, -6], 3, [32, -48]), ([4, -6, 10, -10], -2, [1, -2, 2, -3])],  # D6, D7
)
def test_an_exponent_shifts_the_sum(weights: list[int], exponent: int, sent: list[int]) -> None:
    x = np.eye(len(weights), dtype=np.int32)[:, None]
    assert sums((dense(weights),), x, 1, {"w": exponent}) == [[s] for s in sent]


def test_d7_together_the_sum_is_shifted_not_the_terms() -> None:
    x = np.ones((1, 1, 4), np.int32)
    assert sums((dense([4, -6, 10, -10]),), x, 1, {"w": -2}) == [
        [-1]
    ]  # -2 >> 2; 1 - 2 + 2 - 3 = -2


def test_d8_graded_inputs() -> None:
    """Lava's input may be negative: (2, -3) here is 2 and 3 on a row of the other sign."""
    x = np.array([[[2, 3]], [[0, 0]]], np.int32)
    assert sums((dense([4, 6]),), x, 3) == [[26], [0]]


def test_d9_spikes_of_the_same_inputs() -> None:
    x = np.array([[[1, 1]], [[0, 0]]], np.int32)
    assert sums((dense([4, -6]),), x) == [[-2], [0]]


def test_dd1_delays_of_0_and_2_steps() -> None:
    x = np.array([[1, 1], *[[0, 0]] * 3], np.int32)[:, None]
    row = Dense("now", np.float32([[4, 0]])), Dense("later", np.float32([[0, 6]]))
    layer = Layer("a", Sum(), (1,), (
        Synapse("in", row[:1]), Synapse("in", (Delay("d", 2), row[1])),
    ))  # fmt: skip
    net = replace(network((), Sum(), (2,), (1,)), layers=(layer,))
    trace = simulate(net, x.astype(np.float32), 4)
    assert (trace.outputs.ravel() // 64).tolist() == [4, 0, 6, 0]
    assert differences(trace, PLUGIN.open(net, None).run(x.astype(np.float32), 4)) == []


def c_kernel() -> np.ndarray:
    """Lava's (Cout, Kx, Ky, C), a true convolution, as torch's (Cout, C, Ky, Kx)."""
    kernel = np.array([[[1, 2], [3, 4], [5, 300]]], np.float32)[..., None]
    return np.ascontiguousarray(kernel.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1])


@pytest.mark.parametrize(
    ("at", "value", "sent"),
    [((1, 1), 1, [[3, 4], [5, 300]]), ((0, 0), 7, [[2100, 0], [0, 0]])],  # C1, C2
)
def test_convolution(at: tuple[int, int], value: int, sent: list[list[int]]) -> None:
    x = np.zeros((4, 3), np.int32)  # (X, Y)
    x[at] = value
    (found,) = sums((Conv("c", c_kernel()),), x.T[None, None, None], 8)
    assert np.array(found).reshape(2, 2).T.tolist() == sent


def test_c3_a_convolution_wraps_at_24_bits_and_says_so() -> None:
    x = np.array([1, 2, 3], np.int32)[:, None, None, None, None]
    conv = Conv("c", np.full((1, 1, 1, 1), 2**22, np.float32))
    assert sums((conv,), x, 3) == [[4194304], [-8388608], [-4194304]]
    net = network((conv,), LIF(np.float32(0), np.float32(131071)), (1, 1, 1), (1, 1, 1), 3)
    trace = simulate(net, x.astype(np.float32), 3)
    assert differences(trace, PLUGIN.open(net, None).run(x.astype(np.float32), 3)) == []
    # Two sums wrapped, and then each current once more: 2^28 - 2^24, -2^29 + 2^24, -2^28 + 2^24
    # saturate a membrane, above its threshold (which loses nothing), below and below.
    assert trace.overflows == {"a": 2 + 3 + 2}
