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
from ..fetch import VARIABLE, find, warn_of_part

ARCHIVE = "nmnist_small.tar.xz"
"""Some of the recordings in one file, under their published names."""
WINDOW = 300_000
"""Microseconds that are cut into frames, three saccades of 100 ms. Recordings end up to 36 ms
later; what comes then is left out, so that all frames last equally long."""

_FOLDERS: Mapping[Split, str] = {"train": "Train", "test": "Test"}
_WHOLE: Mapping[Split, int] = {"train": 60_000, "test": 10_000}
_NAME = re.compile(r"(Train|Test)/([0-9])/([0-9]+)\.bin")
_EVENT = 5
_OVERFLOW_ROW, _OVERFLOW = 240, 1 << 13


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


def _counts(data: bytes, where: str, shape: tuple[int, int, int], steps: int) -> NDArray[np.int64]:
    """Events per pixel and frame, (T, 2, H, W): OFF in channel 0, ON in channel 1.

    An event is x, y, then big-endian one bit of polarity (1: ON) and 23 bits of microseconds. A
    row with y = 240 is no event: it and all rows behind it are 2^13 us later than they say.
    """
    if not data or len(data) % _EVENT:
        raise RequestError(
            "E_DATA",
            f"{where}: has {len(data)} bytes, expected a multiple of {_EVENT} (one event) above 0",
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, _EVENT).astype(np.int64)
    x, y, polarity = rows[:, 0], rows[:, 1], rows[:, 2] >> 7
    late = y == _OVERFLOW_ROW
    time = ((rows[:, 2] & 127) << 16) + (rows[:, 3] << 8) + rows[:, 4] + np.cumsum(late) * _OVERFLOW
    outside = ~late & ((x >= shape[2]) | (y >= shape[1]))
    if outside.any():
        at = int(outside.argmax())
        raise RequestError(
            "E_DATA",
            f"{where}: event {at} is at x = {x[at]}, y = {y[at]}, expected 0 to {shape[2] - 1} and "
            f"0 to {shape[1] - 1}",
        )
    kept = ~late & (time < WINDOW)
    frame = time[kept] * steps // WINDOW
    places = np.ravel_multi_index((frame, polarity[kept], y[kept], x[kept]), (steps, *shape))
    return np.bincount(places, minlength=steps * 2 * shape[1] * shape[2]).reshape(steps, *shape)


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
            raise CouldNotRunError(
                "E_DATA",
                f"data set '{self.name}' is not fetched; give --data DIR or set {VARIABLE} to the "
                f"folder that holds {wanted}",
            )
        found: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for name, data in _recordings(place, split):
            if parts := _NAME.fullmatch(name):
                counts = _counts(data, f"{place}/{name}", self.shape, steps)
                key = (int(parts[3]), int(parts[2]))
                found[key] = counts.clip(max=self.levels).astype(np.uint8)
        if not found:
            raise RequestError(
                "E_DATA", f"{place}: holds no recording {_FOLDERS[split]}/<digit>/<number>.bin"
            )
        warn_of_part(self.name, len(found), _WHOLE[split], split, place)
        order = sorted(found)
        labels = np.array([digit for _, digit in order], np.int64)
        return np.stack([found[key] for key in order]), labels


PLUGIN: DataSet = NMNIST()
