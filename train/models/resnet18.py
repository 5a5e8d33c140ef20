"""ResNet-18, neurons behind the sums: eight blocks of two convolutions, 64 channels and more."""

from __future__ import annotations

from ..residual import Residual, plain

PLUGIN = Residual(plain, (2, 2, 2, 2))
