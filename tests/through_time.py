"""All steps of a synapse at once, a second way to what the reference does step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from snnpipe.network.layers import Delay, Synapse
from snnpipe.network.linear import apply

Values = NDArray[Any]


def delayed(x: Values, steps: int) -> Values:
    """Values of all steps (T, ...) to those of ``steps`` steps before, zeros in front."""
    late = np.zeros_like(x)
    late[steps:] = x[: max(len(x) - steps, 0)]
    return late


def through_time(synapse: Synapse, x: Values, late: bool) -> Values:
    """All steps (T, B, *shape) through a synapse's operations, delays and ``late`` included."""
    x = delayed(x, 1) if late else x
    for operation in synapse.operations:
        if isinstance(operation, Delay):
            x = delayed(x, operation.steps)
            continue
        steps, batch = x.shape[:2]
        flat = apply(operation, x.reshape(steps * batch, *x.shape[2:]))
        x = flat.reshape(steps, batch, *flat.shape[1:])
    return x
