"""SHD: spoken digits as spikes of 700 cochlear channels, 8,156 + 2,264 (Cramer et al. 2022).

Twenty classes, zero to nine in English and in German; the published split, in which two speakers
are of the test set alone. The layout is that of https://zenkelab.org/resources/; no file of the
data set was at hand when this was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.contract import InputCoding
from ..dataset import DataSet, Examples, Split
from ..fetch import find, not_fetched, warn_of_part

WINDOW = 1.4
"""Seconds that are cut into frames of equal duration, as in the data set's own paper (IEEE TNNLS 33
(2022) 2744); the longest recording is shorter."""

_SOURCE = "https://zenkelab.org/datasets"
_FILES: Mapping[Split, str] = {"train": "shd_train.h5", "test": "shd_test.h5"}
_WHOLE: Mapping[Split, int] = {"train": 8_156, "test": 2_264}
_ARRAYS = ("spikes/times", "spikes/units", "labels")


def _arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Times and units, an array for each recording, and labels; links to other files are not
    followed."""
    try:
        with h5py.File(path, "r") as file:
            for name in _ARRAYS:
                for part in (name.partition("/")[0], name):
                    link = file.get(part, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        raise RequestError("E_DATA", f"{path}: lacks '{name}'")
                if not isinstance(file[name], h5py.Dataset) or file[name].ndim != 1:
                    raise RequestError("E_DATA", f"{path}: '{name}' is no list")
            times, units, labels = (file[name][:] for name in _ARRAYS)
    except (OSError, RuntimeError) as error:
        raise RequestError("E_DATA", f"{path}: not a readable HDF5 file ({error})") from error
    if not len(times) == len(units) == len(labels) > 0:
        raise RequestError(
            "E_DATA",
            f"{path}: holds {len(times)} lists of times, {len(units)} of units and {len(labels)} "
            "labels; expected one of each for every recording, and at least one",
        )
    return times, units, labels


@dataclass(frozen=True)
class SHD:
    """Spike counts per channel, cut to ``levels``; reads shd_train.h5 and shd_test.h5."""

    name: str = "shd"
    shape: tuple[int, int, int] = (1, 1, 700)
    classes: int = 20
    levels: int = 15
    scale: float = 1.0
    coding: InputCoding = "events"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:
        """Recordings uint8 (N, T, 1, 1, 700) and labels int64 (N,); what comes behind `WINDOW` is
        left out."""
        file = _FILES[split]
        place = find(self.name, folder, file, lambda place: (place / file).is_file())
        if place is None:
            raise not_fetched(self.name, file, _SOURCE)
        path = place / file
        times, units, labels = _arrays(path)
        found = np.zeros((len(labels), steps, *self.shape), np.uint8)
        for row, (time, unit) in enumerate(zip(times, units, strict=True)):
            found[row] = self._counts(f"{path}: recording {row}", time, unit, steps)
        self._check(path, labels)
        warn_of_part(self.name, len(labels), _WHOLE[split], split, place)
        return found, labels.astype(np.int64)

    def _counts(
        self, where: str, time: NDArray[Any], unit: NDArray[Any], steps: int
    ) -> NDArray[np.uint8]:
        channels = self.shape[-1]
        if time.dtype.kind != "f" or unit.dtype.kind not in "iu" or len(time) != len(unit):
            raise RequestError(
                "E_DATA",
                f"{where} has {len(time)} times of {time.dtype} and {len(unit)} units of "
                f"{unit.dtype}; expected as many, real and whole numbers",
            )
        if not len(time):
            return np.zeros((steps, *self.shape), np.uint8)
        wrong = (unit < 0) | (unit >= channels) | ~(time >= 0) | ~np.isfinite(time)
        if wrong.any():
            at = int(wrong.argmax())
            raise RequestError(
                "E_DATA",
                f"{where}: spike {at} is at {time[at]} s in channel {unit[at]}, expected 0 s or "
                f"later and 0 to {channels - 1}",
            )
        frame = (time.astype(np.float64) * (steps / WINDOW)).astype(np.int64)
        kept = frame < steps
        places = frame[kept] * channels + unit[kept]
        counts = np.bincount(places, minlength=steps * channels)
        return counts.clip(max=self.levels).astype(np.uint8).reshape(steps, *self.shape)

    def _check(self, path: Path, labels: NDArray[Any]) -> None:
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= self.classes:
            raise RequestError(
                "E_DATA",
                f"{path}: its labels are {labels.dtype} from {labels.min()} to {labels.max()}, "
                f"expected whole numbers from 0 to {self.classes - 1}",
            )


PLUGIN: DataSet = SHD()
