"""Imagenette: ten easily told classes of ImageNet, 9,469 + 3,925 colour images, 160x160 (fast.ai).

The set imagenette2-160, whose shorter sides are 160 pixels; its folder val is the test set. No file
of it was at hand when this was written.
"""

from __future__ import annotations

from ..dataset import DataSet
from ..fetch import Remote
from ..image_folder import ImageFolder

PLUGIN: DataSet = ImageFolder(
    name="imagenette",
    classes=10,
    shape=(3, 160, 160),
    resize=160,
    folders={"train": "train", "test": "val"},
    whole={"train": 9_469, "test": 3_925},
    inner="imagenette2-160",
    source="https://github.com/fastai/imagenette",
    archive=Remote(
        "imagenette2-160.tgz",
        ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",),
        "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
    ),
)
