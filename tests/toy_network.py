"""A network of 43 neurons small enough to check by hand, with its input."""

from __future__ import annotations

import numpy as np
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import IF

STEPS = 4


def network() -> Network:
    """1x4x4 to 2x4x4 to 2x2x2 to 3: IF neurons, threshold 0.9, subtracted at a spike."""

    def neuron() -> IF:
        return IF(np.array(0.9, np.float32))

    kernel = np.ones((2, 1, 3, 3), np.float32)
    kernel[1] = 0.5
    conv1 = Conv("conv1", kernel, padding=(1, 1))
    eighth = np.full((2, 2, 3, 3), 0.125, np.float32)
    conv2 = Conv("conv2", eighth, stride=(2, 2), padding=(1, 1))
    fc = Dense("fc", np.full((3, 8), 0.125, np.float32))
    layers = (
        Layer("one", neuron(), (2, 4, 4), (Synapse("input", (conv1,)),)),
        Layer("two", neuron(), (2, 2, 2), (Synapse("one", (conv2,)),)),
        Layer("three", neuron(), (3,), (Synapse("two", (Flatten("flat"), fc)),)),
    )
    contract = Contract(STEPS, reset="subtract")
    return Network("input", (1, 4, 4), layers, "three", contract)


def frame(samples: int = 1) -> np.ndarray:
    """(B, 1, 4, 4): three pixels are lit."""
    x = np.zeros((samples, 1, 4, 4), np.float32)
    x[:, 0, 0, 0] = 1.0
    x[:, 0, 1, 2] = 0.5
    x[:, 0, 3, 3] = 1.0
    return x
