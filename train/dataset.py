"""What a data set is: labelled images or recordings as the levels they are stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..network.contract import InputCoding

Split = Literal["train", "test"]
Examples = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, C, H, W) or recordings (N, T, C, H, W) in levels, and labels (N,)."""


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
        """Uint8 images (N, C, H, W), or recordings in ``steps`` frames (N, T, C, H, W), and labels
        int64 (N,), in the order of the files.

        ``folder`` is where the user keeps data, None to look where `fetch.find` looks. Raises
        CouldNotRunError (E_DATA) when the files are not there, RequestError (E_DATA) when they are
        not what they should be.
        """
        ...
