"""CIFAR-10 images kept as lossless WebP sheets, turned into the official binary rows."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE, PER_LINE = 32, 40
"""Pixels of a tile, and tiles in a line of a sheet; tiles run left to right, then down."""


def _tiles(sheet: Path) -> NDArray[np.uint8]:
    """All places of a sheet, NHWC."""
    from PIL import Image

    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    lines = pixels.shape[0] // SIDE
    tiles = pixels.reshape(lines, SIDE, PER_LINE, SIDE, 3).swapaxes(1, 2)
    return tiles.reshape(-1, SIDE, SIDE, 3)


def images_and_labels(sheets: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images (N, 32, 32, 3) of a split and their labels (N,); places past the last are cut."""
    data = (sheets / f"{split}-labels-idx1-ubyte").read_bytes()
    magic, count = struct.unpack_from(">II", data)
    assert magic == 0x801
    labels = np.frombuffer(data, np.uint8, offset=8)
    assert len(labels) == count
    tiles = [_tiles(sheet) for sheet in sorted(sheets.glob(f"{split}_*.webp"))]
    return np.concatenate(tiles)[:count], labels


def official_rows(sheets: Path, split: str) -> NDArray[np.uint8]:
    """Rows (N, 3073): the label, then the red, the green and the blue plane."""
    images, labels = images_and_labels(sheets, split)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, None], planes], axis=1)


def write_binary_version(sheets: Path, folder: Path) -> Path:
    """Write what the sheets hold as ``folder``/cifar-10-batches-bin; returns that folder."""
    target = folder / "cifar-10-batches-bin"
    target.mkdir(parents=True)
    for split, file in (("train", "data_batch_1.bin"), ("test", "test_batch.bin")):
        (target / file).write_bytes(official_rows(sheets, split).tobytes())
    return target
