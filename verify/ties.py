"""How often a membrane met its threshold exactly: where ``>`` and ``>=`` decide otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.dynamics import WEIGHT_SHIFT
from ..network.layers import Network
from ..network.neurons import Spiking
from ..network.simulate import simulate
from ..network.trace import Record
from .chain import BATCH


def ties(network: Network, x: NDArray[Any]) -> dict[str, int]:
    """Per spiking layer of an integer network, decisions at v = threshold on all samples and steps
    of the contract. ``x``: stored inputs (B, *stored_shape).

    Up to the first of them both comparisons run alike; what follows a tie is the network's own
    comparison. Raises RequestError (E_INPUT).
    """
    thresholds = {
        layer.name: np.rint(layer.neuron.threshold).astype(np.int64) << WEIGHT_SHIFT
        for layer in network.layers
        if isinstance(layer.neuron, Spiking)
    }
    found = dict.fromkeys(thresholds, 0)

    def watch(name: str, _t: int, membrane: NDArray[Any], _current: NDArray[Any]) -> None:
        found[name] += int(np.count_nonzero(membrane == thresholds[name]))

    for start in range(0, len(x), BATCH):
        frames = network.frames(x[start : start + BATCH])
        simulate(network, frames, network.contract.steps, Record(spikes=0), watch=watch)
    return found
