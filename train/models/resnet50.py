"""ResNet-50, neurons behind the sums: sixteen bottlenecks of three convolutions."""

from __future__ import annotations

from ..residual import Residual, bottleneck

PLUGIN = Residual(bottleneck, (3, 4, 6, 3))
