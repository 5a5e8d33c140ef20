"""CIFAR-10: ten kinds of objects, 50,000 + 10,000 colour images of 32x32 (Krizhevsky 2009)."""

from __future__ import annotations

from ..cifar import CifarImages
from ..dataset import DataSet
from ..fetch import Remote

PLUGIN: DataSet = CifarImages(
    name="cifar10",
    classes=10,
    labels=1,
    folder="cifar-10-batches-bin",
    files={
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    rows={"train": 10_000, "test": 10_000},
    archive=Remote(
        "cifar-10-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
)
