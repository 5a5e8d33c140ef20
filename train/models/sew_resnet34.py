"""SEW-ResNet-34, spikes added to spikes: sixteen blocks of two populations.

Fang et al., "Deep Residual Learning in Spiking Neural Networks", arXiv 2102.04159 (ADD).
"""

from __future__ import annotations

from ..residual import Residual, sew

PLUGIN = Residual(sew, (3, 4, 6, 3))
