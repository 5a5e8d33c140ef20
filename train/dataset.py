"""What a data set is: labelled images or recordings as the levels they are stored in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..network.contract import InputCoding

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Lazy:
    """Images or recordings that memory need not hold: ``item`` reads that of a row, uint8
    (C, H, W) or (T, C, H, W). It may be called from several threads."""

    rows: NDArray[np.int64]
    item: Callable[[int], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Lazy:
        """Some of them, unread: a slice, a mask (N,) or places."""
        return Lazy(self.rows[chosen], self.item)

    def read(self) -> NDArray[np.uint8]:
        """All of them, (N, C, H, W) or (N, T, C, H, W)."""
        return np.stack([self.item(row) for row in self.rows.tolist()])


Stored = NDArray[np.uint8] | Lazy
"""Images (N, C, H, W) or recordings (N, T, C, H, W) in levels."""
Examples = tuple[Stored, NDArray[np.int64]]
"""The stored inputs, and labels (N,)."""


def mixed(count: int) -> NDArray[np.int64]:
    """An order for inputs that lie sorted by class: of it the first so many are a fair sample.

    Always the same: RandomState draws alike in every numpy release (NEP 19).
    """
    return np.random.RandomState(0).permutation(count).astype(np.int64)


def read(stored: Stored) -> NDArray[np.uint8]:
    """Stored inputs in memory."""
    return stored.read() if isinstance(stored, Lazy) else stored


class DataSet(Protocol):
    """A plug-in of kind ``data``.

    ``shape`` is (C, H, W) of one frame, ``levels`` the largest stored value, ``scale`` what one
    level is worth in the network (a power of two; no mean or deviation is taken off), ``coding``
    direct: still images, shown at every step, or events: recordings of one frame a step.
    """

    @property
    def name(self) -> str:
        """The plug-in's name."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes; labels are 0 .. classes - 1."""
        ...

    @property
    def levels(self) -> int:
        """The largest stored value."""
        ...

    @property
    def scale(self) -> float:
        """What one level is worth."""
        ...

    @property
    def coding(self) -> InputCoding:
        """How inputs become steps."""
        ...

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:
        """Uint8 images (N, C, H, W), or recordings in ``steps`` frames (N, T, C, H, W), in memory
        or read when asked for, and labels int64 (N,), in the order of the files, or `mixed` where
        those are sorted by class.

        ``folder`` is where the user keeps data, None to look where `fetch.find` looks. Raises
        CouldNotRunError (E_DATA) when the files are not there, RequestError (E_DATA) when they are
        not what they should be.
        """
        ...
