"""CIFAR10-DVS: CIFAR-10 images before an event camera, 10,000 recordings (Li et al. 2017).

The authors split nothing: here, as in most of what is published, a tenth of each class is the test
set, drawn once for all (seed 0). Others take each class's first or last hundred; an accuracy is
comparable under the same split only. Frames of equally many events, 128x128 pixels summed to 48x48
(published nets interpolate to 48x48). No file of the data set was at hand when this was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.contract import InputCoding
from ..dataset import DataSet, Examples, Split, mixed
from ..event_files import aedat2, content
from ..event_frames import by_count, frames
from ..fetch import find, not_fetched, warn_of_part

_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_SOURCE = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
_EACH = 1_000
_SEED = 0
_SENSOR = (128, 128)


@dataclass(frozen=True)
class Cifar10DVS:
    """Event counts, cut to ``levels``; reads <class>/cifar10_<class>_<number>.aedat."""

    name: str = "cifar10dvs"
    shape: tuple[int, int, int] = (2, 48, 48)
    classes: int = 10
    levels: int = 255
    scale: float = 1.0
    coding: InputCoding = "events"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:
        """Recordings uint8 (N, T, 2, 48, 48), `mixed`, and labels int64 (N,)."""
        wanted = "folders airplane to truck of .aedat files"
        place = find(self.name, folder, wanted, lambda p: (p / _CLASSES[0]).is_dir())
        if place is None:
            raise not_fetched(self.name, wanted, _SOURCE)
        paths, labels = _chosen(place, split)
        order = mixed(len(paths))
        recordings = [self._recording(paths[row], steps) for row in order]
        whole = _EACH * self.classes // 10
        whole = whole if split == "test" else _EACH * self.classes - whole
        warn_of_part(self.name, len(paths), whole, split, place)
        return np.stack(recordings), labels[order]

    def _recording(self, path: Path, steps: int) -> NDArray[np.uint8]:
        events = aedat2(content(path), str(path))
        if not len(events):
            raise RequestError("E_DATA", f"{path}: holds no event")
        frame = by_count(events, steps)
        return frames(events, frame, steps, self.shape, self.levels, _SENSOR)


def _chosen(place: Path, split: Split) -> tuple[list[Path], NDArray[np.int64]]:
    """The files of a split and their classes. RandomState draws the same in every numpy release
    (NEP 19)."""
    draw = np.random.RandomState(_SEED)
    paths: list[Path] = []
    labels: list[int] = []
    for label, kind in enumerate(_CLASSES):
        numbered = {
            int(parts[1]): path
            for path in (place / kind).glob("*.aedat")
            if (parts := re.fullmatch(rf"cifar10_{kind}_([0-9]+)", path.stem))
        }
        if len(numbered) < 2:
            raise RequestError(
                "E_DATA",
                f"{place / kind}: holds {len(numbered)} files cifar10_{kind}_<number>.aedat, "
                f"expected {_EACH}",
            )
        order = draw.permutation(sorted(numbered))
        tested = set(order[: max(1, round(len(order) / 10))].tolist())
        chosen = [n for n in sorted(numbered) if (n in tested) == (split == "test")]
        paths += [numbered[number] for number in chosen]
        labels += [label] * len(chosen)
    return paths, np.array(labels, np.int64)


PLUGIN: DataSet = Cifar10DVS()
