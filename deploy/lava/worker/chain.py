"""A short chain in Lava's real runtime: a source, Dense, LIF and a sink, each its own process.

The request: ``steps``, and ``dense`` and ``lif``, keyword arguments of Lava's processes beside
their weights and shape. The arrays: ``spikes`` (N, steps) and ``weights`` (out, N). The answer:
``s`` (out, steps), what the neurons sent; the first column is empty, for a connection takes a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .frames import Arrays


def run(
    request: Mapping[str, Any], arrays: Arrays, alive: Callable[[], None]
) -> tuple[dict[str, Any], Arrays]:
    """One step, to bring everything up, then the rest."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.dense.process import Dense
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF

    weights, steps = arrays["weights"], request["steps"]
    source = Source(data=arrays["spikes"])
    dense = Dense(weights=weights, **request["dense"])
    neurons = LIF(shape=(len(weights),), **request["lif"])
    sink = Sink(shape=(len(weights),), buffer=steps)
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(neurons.a_in)
    neurons.s_out.connect(sink.a_in)
    config = Loihi2SimCfg(select_tag="fixed_pt")
    neurons.run(condition=RunSteps(num_steps=1), run_cfg=config)
    alive()
    neurons.run(condition=RunSteps(num_steps=steps - 1), run_cfg=config)
    spikes = sink.data.get().astype(np.int32)
    neurons.stop()  # not after a failure: it may never return, and the parent ends us anyway
    return {}, {"s": spikes}
