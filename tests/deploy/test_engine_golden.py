"""Vectors produced by Lava 0.10.0 (`fixed_pt` process models), run on the engine's integers.

Source of all numbers: lava-nc/lava 0.10.0, `PyLifModelBitAcc`, `PyDenseModelBitAcc` and
`PyConvModelFixed` under `Loihi2SimCfg(select_tag="fixed_pt")`. Lava sends a synapse's sum one step
later; here it arrives in the step of its spikes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from snnpipe.network.dynamics import loihi_bias

engine = pytest.importorskip(
    "snnpipe.deploy.engine._engine", reason="the event engine is not built here"
)


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


def lif(
    inputs: list[int], du: Any, dv: Any, vth: int, bias: int = 0, neurons: int = 1
) -> tuple[list[Any], list[Any], list[Any]]:
    """Spikes, u (with the bias) and v of every step."""
    weight, x = unary(inputs)
    assert abs(weight).max() <= 256
    b = engine.IntegerBuilder()
    source = b.input((weight.shape[1], 1, 1), 1)
    group = b.spiking((neurons, 1, 1), whole(du), whole(dv), whole(vth), whole(bias))
    b.dense(source, group, np.repeat(weight, neurons, axis=0))
    out, _, _, currents, membranes, _ = b.build(group).run(
        [x], len(inputs), currents=1, membranes=1
    )
    squeezed = (out[:, 0], currents[group][:, 0], membranes[group][:, 0])
    s, u, v = (np.squeeze(a.T, 0) if neurons == 1 else a.T for a in squeezed)
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
    s, current, v = lif([0, 0, 0], 4095, 0, 100, bias=100 << 6)
    assert (s, v) == ([0, 1, 0], [6400, 0, 6400])
    assert current == [6400] * 3  # u is 0; the engine records u + bias


def test_g7_prime_a_bias_shifted_right() -> None:
    s, _, v = lif([0, 0, 0], 4095, 0, 100, bias=loihi_bias(-3, -1))
    assert (s, v) == ([0, 0, 0], [-2, -4, -6])


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


def dense_sums(weight: np.ndarray, x: np.ndarray, limit: int) -> list[list[int]]:
    """What each step sends, in weight units: a `Sum` of the engine emits 64 times that."""
    b = engine.IntegerBuilder()
    source, target = b.input((weight.shape[1], 1, 1), limit), b.sum((len(weight), 1, 1), whole(0))
    b.dense(source, target, np.ascontiguousarray(weight))
    out = b.build(target).run([x], len(x))[0][:, 0]
    assert not (out % 64).any()
    sums: list[list[int]] = (out // 64).tolist()
    return sums


@pytest.mark.parametrize(
    ("weights", "sign", "mixed", "bits", "sums"),
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
    weights: list[int], sign: int, mixed: bool, bits: int, sums: list[int]
) -> None:
    weight = stored(weights, sign, mixed, bits)[None]
    x = np.eye(len(weights), dtype=np.int32)[:, None]
    assert dense_sums(weight, x, 1) == [[s] for s in sums]


def test_d8_graded_inputs() -> None:
    x = np.array([[[2, -3]], [[0, 0]]], np.int32)
    assert dense_sums(np.array([[4, -6]], np.int32), x, 3) == [[26], [0]]


def test_c1_convolution() -> None:
    kernel = np.array([[[1, 2], [3, 4], [5, 300]]], np.int32)[..., None]  # (Cout, Kx, Ky, C)
    weight = np.ascontiguousarray(kernel.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1])
    x = np.zeros((4, 3), np.int32)  # (X, Y)
    x[1, 1] = 1
    b = engine.IntegerBuilder()
    source, target = b.input((1, 3, 4), 1), b.sum((1, 2, 2), whole(0))
    b.conv(source, target, weight)
    out = b.build(target).run([np.ascontiguousarray(x.T).reshape(1, 12)], 1)[0]
    assert (out.reshape(2, 2).T // 64).tolist() == [[3, 4], [5, 300]]
