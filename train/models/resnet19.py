"""ResNet-19, neurons behind the sums: eight wide blocks, 128 channels and more, 256 hidden units.

Zheng et al., arXiv 2011.05280. The currents of the hidden layer are normalised, as everywhere here.
"""

from __future__ import annotations

from ..residual import Residual, plain

PLUGIN = Residual(plain, (3, 3, 2), width=128, hidden=(256,))
