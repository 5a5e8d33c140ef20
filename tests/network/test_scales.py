"""Scales of whole weights: the rounding, the search, and that they are found again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from snnpipe.network.loihi import effective_weight
from snnpipe.network.scales import (
    RATIOS,
    SILENT_SCALE,
    against,
    channel_scales,
    lattice_options,
    lattice_scale,
    lattice_scales,
    least_squares_scale,
    threshold_units,
    whole_weights,
)
from snnpipe.network.shared_scales import core_groups, covered, shared

BITS = (2, 3, 4, 8)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.02, 0.3, shape).astype(np.float32)


@pytest.mark.parametrize("bits", BITS)
def test_what_the_chip_truncates_is_nothing(bits: int) -> None:
    weight = normal(bits, 5, 4, 3, 2)
    for sign in (weight, -abs(weight), abs(weight), np.zeros_like(weight)):
        for scale in (90.0, 5000.0, np.array([1.0, 60, 300, 700, 9000])):
            whole = whole_weights(sign, scale, bits)
            assert np.array_equal(effective_weight(whole, bits), whole)
            assert not np.signbit(whole[whole == 0]).any()


def test_the_rounding_by_hand() -> None:
    weight = np.array([[0.5, -0.49], [9.0, -9.0]], np.float32)
    assert whole_weights(weight, 64.0, 4).tolist() == [[32, -32], [224, -256]]
    assert whole_weights(weight, np.array([32.0, 1.0]), 4).tolist() == [[0, 0], [0, 0]]
    assert whole_weights(-abs(weight), 64.0, 4).tolist() == [[-32, -32], [-224, -224]]
    assert whole_weights(weight, np.array([64.0, 4.0]), 4).tolist() == [[32, -32], [32, -32]]
    assert threshold_units(np.array([0.5, 1.2]), np.array([65.0, 10.0])).tolist() == [32, 12]


@pytest.mark.parametrize("bits", BITS)
def test_the_scale_is_the_one_of_least_error(bits: int) -> None:
    weight = normal(3, 6, 40)
    step = 2 ** (9 - bits)

    def error(scale: float) -> float:
        return float(((whole_weights(weight, scale, bits) / scale - weight) ** 2).sum())

    found = least_squares_scale(weight, bits)
    base = (256 - step) / abs(weight).max()
    assert all(error(found) <= 1.05 * error(float(ratio * base)) for ratio in RATIOS)
    assert error(found) < error(base * 0.8)
    assert 0.75 * base < found < 5 * base
    cap = found * 0.7
    assert least_squares_scale(weight, bits, cap) <= cap
    both = least_squares_scale([weight[:, :25], weight[:, 25:]], bits)
    assert both == found
    single = channel_scales(weight, bits, cap)
    assert single.tolist() == [least_squares_scale(row[None], bits, cap) for row in weight]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("seed", range(5))
def test_weights_that_were_rounded_once_keep_their_scale(bits: int, seed: int) -> None:
    weight = normal(seed, 7, 30)
    scale = least_squares_scale(weight, bits)
    whole = whole_weights(weight, scale, bits)
    back = (whole / scale).astype(np.float32)
    assert np.allclose(back, whole / scale, rtol=1e-15, atol=0)  # float32 holds them
    found = lattice_scale(back, bits)
    assert found is not None
    assert found >= scale * 0.999
    kept = whole_weights(back, found, bits)
    assert np.array_equal(kept, np.rint(whole * (found / scale)))
    assert lattice_scale((kept / found).astype(np.float32), bits) == found
    scales = channel_scales(weight, bits, math.inf)
    whole = whole_weights(weight, scales, bits)
    back = (whole / against(scales, weight)).astype(np.float32)
    again = lattice_scales(back, bits, math.inf)
    assert again is not None
    kept = whole_weights(back, again, bits)
    assert np.array_equal((kept / against(again, weight)).astype(np.float32), back)
    assert lattice_scale(weight, bits) is None
    nudged = back.copy()
    nudged[0, 0] += np.float32(1e-4)
    assert lattice_scales(nudged, bits, math.inf) is None


def test_lattices_by_hand() -> None:
    weight = np.array([[0.75, -0.5], [0.0, 0.25]], np.float32)  # spacing 1/4, 3 at most
    assert lattice_scale(weight, 3) == 256  # step 64, once
    assert lattice_scale(weight, 2) is None
    assert lattice_scale(weight, 4) == 2 * 32 / 0.25
    assert lattice_scale(weight, 4, 255) == 128
    assert lattice_scale(weight, 4, 127) is None
    assert lattice_options([weight], 4) == [128, 256]
    negative = np.array([[-0.5, -1.0]], np.float32)  # -2 at most: 2 bits have no -256 alone
    assert lattice_scale(negative, 2) is None
    assert lattice_scale(np.array([[-0.5, -1.0, 0.5]], np.float32), 2) == 256
    mixed = np.array([[-0.5, -1.0], [0.5, 0.0]], np.float32)
    scales = lattice_scales(mixed, 2, math.inf)
    assert scales is not None
    assert scales.tolist() == [256, 256]
    assert lattice_scale(np.zeros((2, 2), np.float32), 5) == pytest.approx(SILENT_SCALE, rel=0.04)


def test_channels_on_cores() -> None:
    assert core_groups((10, 14, 14), 1024) == [slice(0, 5), slice(5, 10)]
    assert core_groups((2, 40, 40), 1024) == [slice(0, 1), slice(1, 2)]
    assert core_groups((1500,), 1024) == [slice(0, 1024), slice(1024, 2048)]


def test_few_scales_on_a_core() -> None:
    rng = np.random.default_rng(0)
    wanted = np.exp(rng.normal(6, 0.7, 50))
    caps = wanted * 1.1
    groups = [slice(0, 30), slice(30, 60)]
    found = shared(wanted, caps, 4, groups, 5)
    assert (found <= caps).all()
    for group in groups:
        assert len(np.unique(found[group])) == 5
    free = np.full(50, np.inf)
    spread = np.log(shared(wanted, free, 4, groups, 5) / wanted).std()
    assert spread < 0.5 * np.log(wanted).std()
    assert np.array_equal(shared(wanted, free, 4, groups, 30), wanted)


def test_scales_that_several_channels_share() -> None:
    options = [[10.0, 20.0], [20.0], [30.0], [15.0, 30.0], [256.0]]
    silent = [False] * 4 + [True]
    found = covered(options, silent, [slice(0, 5)], 2)
    assert found is not None
    assert found.tolist() == [20, 20, 30, 30, 30]
    assert covered(options, silent, [slice(0, 5)], 1) is None
