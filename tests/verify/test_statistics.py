"""Intervals and paired comparisons against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from snnpipe.verify.statistics import Accuracy, Paired, accuracy, paired


def test_wilson_interval_of_a_published_example() -> None:
    # 9,089 of 10,000: 90.31 to 91.44 %; R: binom::binom.wilson(9089, 10000).
    low, high = Accuracy(9089, 10000).interval
    assert round(100 * low, 2) == 90.31
    assert round(100 * high, 2) == 91.44


def test_wilson_stays_inside_zero_and_one() -> None:
    assert Accuracy(0, 10).interval[0] == 0.0
    assert Accuracy(10, 10).interval[1] == 1.0
    assert Accuracy(10, 10).interval[0] < 1.0


def test_mcnemar_is_the_exact_binomial() -> None:
    # 8 lost, 5 gained of 10,000: two-sided binomial p = 0.581.
    pair = Paired(lost=8, gained=5, changed=13, n=10000)
    assert pair.p_value == pytest.approx(0.5811, abs=5e-5)
    assert pair.difference == pytest.approx(-0.0003)
    assert Paired(0, 0, 0, 100).p_value == 1.0
    assert Paired(0, 10, 10, 100).p_value == pytest.approx(2 / 1024)


def test_paired_counts_by_image() -> None:
    labels = np.array([0, 1, 2, 3, 4])
    first = np.array([0, 1, 0, 3, 1])
    second = np.array([0, 0, 2, 3, 2])
    pair = paired(first, second, labels)
    assert (pair.lost, pair.gained, pair.changed, pair.n) == (1, 1, 3, 5)
    assert accuracy(first, labels).correct == 3
