"""DVS128 Gesture: 11 gestures before an event camera, 1,176 + 288 recordings (Amir et al. 2017).

The published split: users 1 to 23 train, 24 to 29 test, by the lists trials_to_train.txt and
trials_to_test.txt. Each line of a trial's label file is a recording, cut into frames of equally
many events, as in Fang et al. (arXiv 2007.05785) and most of what is published since. The container
(AEDAT 3.1) was not at hand when this was written; clips of its events were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.contract import InputCoding
from ..dataset import DataSet, Examples, Split
from ..event_files import aedat3, content, within
from ..event_frames import by_count, frames
from ..fetch import find, not_fetched, warn_of_part

_SOURCE = "https://research.ibm.com/interactive/dvsgesture"
_INNER = "DvsGesture"
_LISTS: Mapping[Split, str] = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
_WHOLE: Mapping[Split, int] = {"train": 1_176, "test": 288}
_HEADER = "class,startTime_usec,endTime_usec"


def _text(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        lines = content(path).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError("E_DATA", f"{path}: is not plain text ({error.reason})") from error
    return [line.strip() for line in lines if line.strip()]


def _intervals(path: Path, classes: int) -> Iterator[tuple[int, int, int]]:
    """Class (from 0), begin and end in microseconds of each line."""
    lines = _text(path)
    if not lines or lines[0] != _HEADER:
        found = lines[0] if lines else ""
        raise RequestError("E_DATA", f"{path}: begins with '{found[:100]}', expected '{_HEADER}'")
    for number, line in enumerate(lines[1:], 2):
        parts = line.split(",")
        fits = len(parts) == 3 and all(part.isdecimal() for part in parts)
        kind, begin, end = map(int, parts) if fits else (0, 0, 0)
        if not 1 <= kind <= classes or begin >= end:
            raise RequestError(
                "E_DATA",
                f"{path}: line {number} is '{line[:100]}', expected a class from 1 to {classes}, "
                "and microseconds of a begin and a later end",
            )
        yield kind - 1, begin, end


@dataclass(frozen=True)
class DVS128Gesture:
    """Event counts, cut to ``levels``; reads the folder DvsGesture of the published archive."""

    name: str = "dvs128gesture"
    shape: tuple[int, int, int] = (2, 128, 128)
    classes: int = 11
    levels: int = 255
    scale: float = 1.0
    coding: InputCoding = "events"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:
        """Recordings uint8 (N, T, 2, 128, 128) in the order of the list, and labels int64 (N,)."""

        def inside(place: Path) -> Path:
            inner = place / _INNER
            return inner if inner.is_dir() else place

        wanted = f"{_LISTS[split]} beside the .aedat files and their _labels.csv"
        place = find(self.name, folder, wanted, lambda p: (inside(p) / _LISTS[split]).is_file())
        if place is None:
            raise not_fetched(self.name, wanted, _SOURCE)
        place = inside(place)
        recordings: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        for trial in _text(place / _LISTS[split]):
            for label, counts in self._trial(place / trial, steps):
                recordings.append(counts)
                labels.append(label)
        if not recordings:
            raise RequestError("E_DATA", f"{place / _LISTS[split]}: names no recording")
        warn_of_part(self.name, len(labels), _WHOLE[split], split, place)
        return np.stack(recordings), np.array(labels, np.int64)

    def _trial(self, path: Path, steps: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        events = within(aedat3(content(path), str(path)), self.shape[1:], str(path))
        labels = path.with_name(f"{path.stem}_labels.csv")
        for label, begin, end in _intervals(labels, self.classes):
            gesture = events[(events.time >= begin) & (events.time < end)]
            if not len(gesture):
                raise RequestError(
                    "E_DATA",
                    f"{path}: has no event from {begin} to {end} us, of which {labels.name} tells",
                )
            yield label, frames(gesture, by_count(gesture, steps), steps, self.shape, self.levels)


PLUGIN: DataSet = DVS128Gesture()
