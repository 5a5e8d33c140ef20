"""N-MNIST: MNIST's digits before a moving event camera, 60,000 + 10,000 recordings of 34x34."""

from __future__ import annotations

import lzma
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import CouldNotRunError, RequestError
from ...network.contract import InputCoding
from ..dataset import DataSet, Examples, Split
from ..event_files import five_bytes
from ..event_frames import by_duration, frames
from ..fetch import find, not_fetched, warn_of_part

ARCHIVE = "nmnist_small.tar.xz"
"""Some of the recordings in one file, under their published names."""
WINDOW = 300_000
"""Microseconds that are cut into frames, three saccades of 100 ms. Recordings end up to 36 ms
later; what comes then is left out, so that all frames last equally long."""

_FOLDERS: Mapping[Split, str] = {"train": "Train", "test": "Test"}
_WHOLE: Mapping[Split, int] = {"train": 60_000, "test": 10_000}
_NAME = re.compile(r"(Train|Test)/([0-9])/([0-9]+)\.bin")


def _recordings(place: Path, split: Split) -> Iterator[tuple[str, bytes]]:
    """Name within ``place`` and content of every recording of a split; folders go first."""
    archive = place / ARCHIVE
    try:
        if (place / _FOLDERS[split]).is_dir():
            for path in place.glob(f"{_FOLDERS[split]}/*/*.bin"):
                yield path.relative_to(place).as_posix(), path.read_bytes()
            return
        with tarfile.open(archive, "r:xz") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None and member.name.startswith(f"{_FOLDERS[split]}/"):
                    yield member.name, content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise RequestError("E_DATA", f"{archive}: is damaged ({error})") from error
    except OSError as error:
        raise CouldNotRunError("E_DATA", f"cannot read {place}: {error.strerror}") from error


@dataclass(frozen=True)
class NMNIST:
    """Event counts, cut to ``levels`` (of 600 recordings in 10 frames none is above 12).

    Reads the published folders Train/<digit>/ and Test/<digit>/, or the archive.
    """

    name: str = "nmnist"
    shape: tuple[int, int, int] = (2, 34, 34)
    classes: int = 10
    levels: int = 15
    scale: float = 1.0
    coding: InputCoding = "events"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:
        """Recordings uint8 (N, T, 2, 34, 34) in MNIST's order, and labels int64 (N,)."""
        wanted = f"the folder {_FOLDERS[split]} or {ARCHIVE}"

        def holds(place: Path) -> bool:
            return (place / _FOLDERS[split]).is_dir() or (place / ARCHIVE).is_file()

        place = find(self.name, folder, wanted, holds)
        if place is None:
            raise not_fetched(self.name, wanted)
        found: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for name, data in _recordings(place, split):
            if parts := _NAME.fullmatch(name):
                events = five_bytes(data, f"{place}/{name}", self.shape[1:])
                frame = by_duration(events, 0, WINDOW, steps)
                key = (int(parts[3]), int(parts[2]))
                found[key] = frames(events, frame, steps, self.shape, self.levels)
        if not found:
            raise RequestError(
                "E_DATA", f"{place}: holds no recording {_FOLDERS[split]}/<digit>/<number>.bin"
            )
        warn_of_part(self.name, len(found), _WHOLE[split], split, place)
        order = sorted(found)
        labels = np.array([digit for _, digit in order], np.int64)
        return np.stack([found[key] for key in order]), labels


PLUGIN: DataSet = NMNIST()
