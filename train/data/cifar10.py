"""CIFAR-10: ten kinds of objects, 50,000 + 10,000 colour images of 32x32 (Krizhevsky 2009)."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import CouldNotRunError, RequestError
from ...files import write_folder
from ...network.contract import InputCoding
from ..dataset import DataSet, Examples, Split
from ..fetch import Remote, fetch, find, warn_of_part

_FOLDER = "cifar-10-batches-bin"
_FILES: Mapping[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
_ROWS_PER_FILE = 10_000
_ROW = 1 + 3 * 32 * 32


def _read_rows(path: Path, classes: int) -> NDArray[np.uint8]:
    """Rows (N, 3073) of one file: a label, then the red, the green and the blue plane."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise CouldNotRunError("E_DATA", f"cannot read {path}: {error.strerror}") from error
    if not data.size or data.size % _ROW:
        raise RequestError(
            "E_DATA", f"{path}: has {data.size} bytes, expected a multiple of {_ROW} (one row)"
        )
    rows = data.reshape(-1, _ROW)
    if rows[:, 0].max() >= classes:
        at = int(rows[:, 0].argmax())
        raise RequestError(
            "E_DATA", f"{path}: the label of row {at} is {rows[at, 0]}, expected 0 to {classes - 1}"
        )
    return rows


def _unpacked(archive: Path) -> Path:
    """The folder of binary files, unpacked beside the archive once, whole or not at all."""
    folder = archive.parent / _FOLDER

    def unpack(beside: Path) -> None:
        with tarfile.open(archive, "r:gz") as tar:
            members = [m for m in tar.getmembers() if m.isfile() and m.name.endswith(".bin")]
            for member in members:
                member.name = Path(member.name).name
            tar.extractall(beside, members, filter="data")

    if not folder.is_dir():
        write_folder(folder, unpack)
    return folder


@dataclass(frozen=True)
class Cifar10:
    """Reads the binary version; a folder that holds some of its rows is read as far as it goes."""

    archive: Remote
    name: str = "cifar10"
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    levels: int = 255
    scale: float = 1 / 256
    coding: InputCoding = "direct"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:  # noqa: ARG002 (the protocol's)
        """Images uint8 (N, 3, 32, 32) and labels int64 (N,); see `dataset.DataSet.load`."""

        def present(place: Path) -> list[Path]:
            inner = place / _FOLDER
            place = inner if inner.is_dir() else place
            return [place / name for name in _FILES[split] if (place / name).is_file()]

        place = find(self.name, folder, _FILES[split][0], lambda place: bool(present(place)))
        if place is None:
            place = _unpacked(fetch(self.name, [self.archive]) / self.archive.file)
        rows = np.concatenate([_read_rows(path, self.classes) for path in present(place)])
        warn_of_part(self.name, len(rows), _ROWS_PER_FILE * len(_FILES[split]), split, place)
        return rows[:, 1:].reshape(-1, *self.shape), rows[:, 0].astype(np.int64)


PLUGIN: DataSet = Cifar10(
    Remote(
        "cifar-10-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
)
