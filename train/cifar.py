"""The binary version of the CIFAR data sets: rows of label bytes, then three colour planes."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CouldNotRunError, RequestError
from ..files import write_folder
from ..network.contract import InputCoding
from .dataset import Examples, Split
from .fetch import Remote, fetch, find, warn_of_part

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class CifarImages:
    """A data set in CIFAR's binary version, of whose ``labels`` bytes the last is the class.

    ``rows``: how many each of the ``files`` holds when whole; a folder that holds some of them is
    read as far as it goes.
    """

    name: str
    classes: int
    labels: int
    folder: str
    files: Mapping[Split, tuple[str, ...]]
    rows: Mapping[Split, int]
    archive: Remote
    shape: tuple[int, int, int] = (3, 32, 32)
    levels: int = 255
    scale: float = 1 / 256
    coding: InputCoding = "direct"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:  # noqa: ARG002 (the protocol's)
        """Images uint8 (N, 3, 32, 32) and labels int64 (N,); see `dataset.DataSet.load`."""
        files = self.files[split]

        def present(place: Path) -> list[Path]:
            inner = place / self.folder
            place = inner if inner.is_dir() else place
            return [place / name for name in files if (place / name).is_file()]

        place = find(self.name, folder, files[0], lambda place: bool(present(place)))
        if place is None:
            place = self._unpacked(fetch(self.name, [self.archive]) / self.archive.file)
        rows = np.concatenate([self._read(path) for path in present(place)])
        warn_of_part(self.name, len(rows), self.rows[split] * len(files), split, place)
        return rows[:, self.labels :].reshape(-1, *self.shape), self._classes(rows)

    def _classes(self, rows: NDArray[np.uint8]) -> NDArray[np.int64]:
        return rows[:, self.labels - 1].astype(np.int64)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        """Rows (N, label bytes + 3072) of one file."""
        row = self.labels + _PIXELS
        try:
            data = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise CouldNotRunError("E_DATA", f"cannot read {path}: {error.strerror}") from error
        if not data.size or data.size % row:
            raise RequestError(
                "E_DATA", f"{path}: has {data.size} bytes, expected a multiple of {row} (one row)"
            )
        rows = data.reshape(-1, row)
        labels = self._classes(rows)
        if labels.max() >= self.classes:
            at = int(labels.argmax())
            raise RequestError(
                "E_DATA",
                f"{path}: the label of row {at} is {labels[at]}, expected 0 to {self.classes - 1}",
            )
        return rows

    def _unpacked(self, archive: Path) -> Path:
        """The folder of binary files, unpacked beside the archive once, whole or not at all."""
        folder = archive.parent / self.folder

        def unpack(beside: Path) -> None:
            with tarfile.open(archive, "r:gz") as tar:
                members = [m for m in tar.getmembers() if m.isfile() and m.name.endswith(".bin")]
                for member in members:
                    member.name = Path(member.name).name
                tar.extractall(beside, members, filter="data")

        if not folder.is_dir():
            write_folder(folder, unpack)
        return folder
