"""Digits: the 1,797 handwritten digits of 8x8 in 17 grey levels that scikit-learn carries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import CouldNotRunError
from ...network.contract import InputCoding
from ..dataset import DataSet, Examples, Split

_SEED = 0


def _test_rows(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True (N,) for a fixed quarter of every class.

    The images stand in the order of their writers, so the quarter is drawn, not cut. RandomState
    draws the same in every numpy release (NEP 19); a Generator need not.
    """
    draw = np.random.RandomState(_SEED)
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(len(rows) / 4)]] = True
    return chosen


@dataclass(frozen=True)
class Digits:
    """Needs no folder and no network; a quarter of each class is the test set."""

    name: str = "digits"
    shape: tuple[int, int, int] = (1, 8, 8)
    classes: int = 10
    levels: int = 16
    scale: float = 1 / 16
    coding: InputCoding = "direct"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:  # noqa: ARG002 (the protocol's)
        """Images uint8 (N, 1, 8, 8) of levels 0 to 16 and labels int64 (N,).

        Raises CouldNotRunError (E_MISSING) without scikit-learn.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise CouldNotRunError(
                "E_MISSING",
                "data set 'digits' is part of scikit-learn, which is not installed: install "
                "snnpipe[train]",
            ) from error
        bunch = load_digits()
        images = bunch.images.astype(np.uint8).reshape(-1, *self.shape)
        labels = bunch.target.astype(np.int64)
        rows = _test_rows(labels) == (split == "test")
        return images[rows], labels[rows]


PLUGIN: DataSet = Digits()
