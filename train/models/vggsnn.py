"""VGGSNN, for event cameras: eight convolutions, four average pools, a linear read-out.

Deng et al., arXiv 2202.11946.
"""

from __future__ import annotations

from ..vgg import VGG

PLUGIN = VGG((64, 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"))
