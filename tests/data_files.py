"""Small made files in the formats of the real data sets."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx(magic: int, sizes: tuple[int, ...], data: bytes) -> bytes:
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + data


def made(
    count: int = 5, seed: int = 3
) -> tuple[bytes, bytes, NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label files as bytes, and what they hold."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    return (
        idx(0x803, images.shape, images.tobytes()),
        idx(0x801, labels.shape, labels.tobytes()),
        images,
        labels,
    )


def put(folder: Path, images: bytes, labels: bytes, split: str = "test", ending: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(IDX[split], (images, labels), strict=True):
        (folder / f"{name}{ending}").write_bytes(gzip.compress(data) if ending else data)


def rows(count: int, seed: int = 1) -> NDArray[np.uint8]:
    """CIFAR-10 rows (count, 3073) with labels 0 to 9."""
    rng = np.random.default_rng(seed)
    made_rows = rng.integers(0, 256, (count, 3073)).astype(np.uint8)
    made_rows[:, 0] %= 10
    return made_rows


def event(x: int, y: int, on: bool, time: int) -> bytes:
    """One row of an N-MNIST recording; ``time`` in microseconds."""
    return bytes((x, y)) + (on << 23 | time).to_bytes(3, "big")


def put_recordings(folder: Path, members: Mapping[str, bytes]) -> None:
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
