"""Whether two Traces are the same in every field, bit for bit, and where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from snnpipe.network.trace import Trace


def _differs(a: Any, b: Any) -> bool:
    return (a.dtype, a.shape) != (b.dtype, b.shape) or a.tobytes() != b.tobytes()


def differences(a: Trace, b: Trace) -> list[str]:
    """Names such as ``currents.conv1`` of all that differs in values, dtype, shape or sign of 0."""
    found = ["outputs"] if _differs(a.outputs, b.outputs) else []
    for field in ("fired", "spikes", "currents", "active"):
        one: dict[str, np.ndarray] = getattr(a, field)
        two: dict[str, np.ndarray] = getattr(b, field)
        found += [f"{field}: {sorted(one)} {sorted(two)}"] if set(one) != set(two) else []
        found += [f"{field}.{k}" for k in one if k in two and _differs(one[k], two[k])]
    if None not in (a.overflows, b.overflows) and a.overflows != b.overflows:
        found.append(f"overflows: {a.overflows} {b.overflows}")  # not every runtime knows them
    return found
