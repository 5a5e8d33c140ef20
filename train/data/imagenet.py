"""ImageNet: a thousand classes, 1,281,167 + 50,000 colour images, 224x224 (ILSVRC 2012).

Its validation images, sorted into a folder for each class as the training images are, are the test
set: nobody else has the labels of the real one. No file of it was at hand when this was written.
"""

from __future__ import annotations

from ..dataset import DataSet
from ..image_folder import ImageFolder

PLUGIN: DataSet = ImageFolder(
    name="imagenet",
    classes=1000,
    shape=(3, 224, 224),
    resize=256,
    folders={"train": "train", "test": "val"},
    whole={"train": 1_281_167, "test": 50_000},
    inner="imagenet",
    source="https://image-net.org (an account is needed)",
)
