"""Accuracy with its interval, and two answers to the same images compared in pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.96
"""Half width of the central 95 % of a normal distribution."""


@dataclass(frozen=True)
class Accuracy:
    """``correct`` of ``n`` with the Wilson 95 % interval, shares in 0..1."""

    correct: int
    n: int

    @property
    def share(self) -> float:
        """Correct over n."""
        return self.correct / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval (E. B. Wilson, 1927)."""
        if not self.n:
            return 0.0, 1.0
        p, n, z2 = self.share, self.n, Z * Z
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Paired:
    """Second against first on the same samples: ``lost`` were right and are wrong, ``gained``
    the other way; ``changed`` predictions in all."""

    lost: int
    gained: int
    changed: int
    n: int

    @property
    def difference(self) -> float:
        """Share gained minus share lost."""
        return (self.gained - self.lost) / self.n if self.n else 0.0

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the difference, for paired answers."""
        if not self.n:
            return 0.0
        discordant, net = self.lost + self.gained, self.gained - self.lost
        return Z * math.sqrt(max(0.0, discordant - net * net / self.n)) / self.n

    @property
    def p_value(self) -> float:
        """Exact two-sided McNemar test: the discordant images split evenly."""
        discordant = self.lost + self.gained
        tail = sum(math.comb(discordant, k) for k in range(min(self.lost, self.gained) + 1))
        return min(1.0, float(2 * tail / 2**discordant))


def accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> Accuracy:
    """Predictions (B,) against labels (B,)."""
    return Accuracy(int((predicted == labels).sum()), len(labels))


def paired(
    first: NDArray[np.int64], second: NDArray[np.int64], labels: NDArray[np.int64]
) -> Paired:
    """Two predictions (B,) of the same images."""
    right, still = first == labels, second == labels
    return Paired(
        int((right & ~still).sum()),
        int((~right & still).sum()),
        int((first != second).sum()),
        len(labels),
    )
