"""VGG-11 with batch normalisation and average pools: eight convolutions, a linear read-out."""

from __future__ import annotations

from ..vgg import VGG

PLUGIN = VGG(
    (64, "pool", 128, 256, "pool", 512, 512, "pool", 512, "pool", 512, 512, "mean"),
)
