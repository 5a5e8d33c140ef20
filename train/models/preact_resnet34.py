"""Pre-activation ResNet-34, currents added to currents: sixteen blocks that begin with neurons.

Hu et al., "Advancing Spiking Neural Networks towards Deep Residual Learning", arXiv 2112.08954, in
the form of arXiv 2410.11488: the read-out takes the mean of the last currents, and where the shape
changes a convolution takes currents too. No chip of spikes alone holds that, and no fine grid makes
its sums exact: export with --no-grid, or take sew_resnet34.
"""

from __future__ import annotations

from ..residual import Residual, pre_activation

PLUGIN = Residual(pre_activation, (3, 4, 6, 3), stem_fires=False)
