"""CIFAR-100: a hundred kinds of objects, 50,000 + 10,000 colour images of 32x32 (Krizhevsky 2009).

A row of the binary version holds a coarse label (0 to 19), the fine one (0 to 99), which is the
class here, and the red, green and blue plane. No file of the data set was at hand when this was
written; the layout is that of https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from ..cifar import CifarImages
from ..dataset import DataSet
from ..fetch import Remote

PLUGIN: DataSet = CifarImages(
    name="cifar100",
    classes=100,
    labels=2,
    folder="cifar-100-binary",
    files={"train": ("train.bin",), "test": ("test.bin",)},
    rows={"train": 50_000, "test": 10_000},
    archive=Remote(
        "cifar-100-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
)
