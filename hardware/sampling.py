"""How much the work of one inference varies from sample to sample.

Energy is linear in counts, so the spread of its counts is the spread of its energy. It stands apart
from the bounds of prices: those are of what is not known, this is of what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..network.fanout import additions
from ..network.layers import Network
from ..network.trace import Trace, unpack


@dataclass(frozen=True)
class Sampling:
    """Synaptic operations of one sample over ``n`` samples: mean, standard deviation (with n - 1;
    0 of one sample), the least and the most."""

    n: int
    mean: float
    deviation: float
    least: int
    most: int


def synops_by_sample(network: Network, trace: Trace) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Additions of each sample whose spikes are recorded, int64 (B',), as `synops` counts them.

    What comes from the input itself or from values that are not spikes is left out: a trace keeps
    their totals only.
    """
    recorded = min((bits.shape[1] for bits in trace.spikes.values()), default=0)
    total = np.zeros(recorded, np.int64)
    for one in additions(network):
        if one.source in trace.spikes:
            bits = trace.spikes[one.source][:, :recorded]
            spikes = unpack(bits, network.shape_of(one.source))[: max(trace.steps - one.late, 0)]
            often = spikes.sum(axis=0, dtype=np.int64)
            total += often.reshape(recorded, one.fan_out.size) @ one.fan_out.reshape(-1)
    return total


def sampling(network: Network, trace: Trace) -> Sampling | None:
    """The spread over the recorded samples; None when none is recorded."""
    each = synops_by_sample(network, trace)
    if not each.size:
        return None
    deviation = float(each.std(ddof=1)) if each.size > 1 else 0.0
    return Sampling(each.size, float(each.mean()), deviation, int(each.min()), int(each.max()))
