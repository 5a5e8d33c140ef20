"""A network with one node of every kind, small enough for tests that edit its file."""

from __future__ import annotations

import numpy as np
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, SumPool, Synapse
from snnpipe.network.neurons import IF, LIF, Sum


def small_network() -> Network:
    """2x6x5 to conv, LIF (4, 3, 3), pool, IF (4, 2, 2), flatten, dense and read-out (3,)."""
    rng = np.random.default_rng(7)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    conv = Conv("conv", some(4, 1, 3, 2), some(4), (2, 1), (1, 0), (1, 2), 2)
    decay = np.array([0.2, 0.25, 0.3, 0.9], np.float32).reshape(4, 1, 1)
    lif = LIF(decay, np.array(1.5, np.float32))
    pool = SumPool("pool", (2, 2), (1, 1))
    layers = (
        Layer("lif", lif, (4, 3, 3), (Synapse("input", (conv,)),)),
        Layer("if", IF(np.array(0.75, np.float32)), (4, 2, 2), (Synapse("lif", (pool,)),)),
        Layer(
            "readout",
            Sum(),
            (3,),
            (Synapse("if", (Flatten("flat"), Dense("fc", some(3, 16), some(3)))),),
        ),
    )
    return Network("input", (2, 6, 5), layers, "readout", Contract(steps=3))
