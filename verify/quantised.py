"""What quantisation did, layer by layer: scales as they were chosen, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..network.layers import Layer, Network
from ..network.neurons import Spiking
from ..network.trace import Trace
from .chain import Findings

INTEGER = "integer"
MANY = 0.1
"""Share of a layer's neurons that may fall silent, or fire all the time, without a warning."""


def quantisation(findings: Findings) -> dict[str, Any] | None:
    """Settings, per layer scale, ranges, silent and saturated neurons, changed spikes; warnings.

    Plain values for the report; None where no integers were made of floats here.
    """
    made, integer = findings.request.quantisation, findings.networks.get(INTEGER)
    if made is None or integer is None:
        return None
    rows = [_row(findings, integer.layer(facts["layer"]), facts) for facts in made["layers"]]
    return {
        "settings": made["settings"],
        "samples": findings.traces[INTEGER].samples,
        "layers": rows,
        "warnings": list(_warnings(rows)),
    }


def _row(findings: Findings, layer: Layer, facts: Mapping[str, Any]) -> dict[str, Any]:
    scales = np.atleast_1d(facts["scale"])
    row = {
        **facts,
        "scale": {"least": float(scales.min()), "most": float(scales.max())},
        "neurons": layer.size,
        "fires": isinstance(layer.neuron, Spiking),
    }
    if not row["fires"]:
        return row
    for name in ("float", INTEGER):
        row[name] = firing(findings.networks[name], findings.traces[name], layer.name)
    for arrow in findings.arrows:
        if arrow.target == INTEGER and arrow.differences is not None:
            row["decisions"] = arrow.differences.decisions.get(layer.name, 0)
            row["changed"] = arrow.differences.changed.get(layer.name, 0)
    return row


def firing(network: Network, trace: Trace, name: str) -> dict[str, int]:
    """Spikes of a layer in a trace, neurons that never fired, and those that always did."""
    fired = trace.fired[name].reshape(trace.steps, network.layer(name).size)
    total = fired.sum(axis=0)
    return {
        "spikes": int(total.sum()),
        "silent": int((total == 0).sum()),
        "saturated": int((total == trace.steps * trace.samples).sum()),
    }


def _warnings(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        name = f"layer '{row['layer']}'"
        if row["remark"]:
            yield f"{name}: {row['remark']}"
        if not row["fires"]:
            continue
        before, after = row["float"], row[INTEGER]
        if before["spikes"] and not after["spikes"]:
            yield f"{name} died: {before['spikes']:,} spikes in floats, none in integers"
            continue
        for what, words in (("silent", "never fire"), ("saturated", "fire at every step")):
            more = after[what] - before[what]
            if more > MANY * row["neurons"]:
                yield (
                    f"{name}: {after[what]:,} of {row['neurons']:,} neurons {words} on these "
                    f"samples, {more:,} more than in floats"
                )
