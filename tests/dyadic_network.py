"""The small network with decays that a chip holds, on the grid: what becomes integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from small_network import small_network
from snnpipe.network.grid import snap
from snnpipe.network.layers import Network
from snnpipe.network.neurons import LIF


def dyadic_network() -> Network:
    """`small_network` with decays 1/4, 1/2, 3/4 and 0 in its first layer; inputs of bytes."""
    network = small_network()
    decay = np.array([0.25, 0.5, 0.75, 0.0], np.float32).reshape(4, 1, 1)
    first = replace(network.layers[0], neuron=LIF(decay, np.array(1.5, np.float32)))
    contract = replace(network.contract, input_scale=1 / 256, input_levels=255)
    return snap(replace(network, layers=(first, *network.layers[1:]), contract=contract))
