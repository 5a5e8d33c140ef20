"""Factors and offsets taken into the weights they follow, in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.layers import AvgPool, Conv, Dense, Operation, SumPool, Synapse

Wide = NDArray[np.float64]


def _weights(synapse: Synapse) -> int | None:
    """The place of the weights that a factor on the synapse can go into, or None.

    Pools may stand behind them, as long as no window holds padding, to which no bias was added.
    """
    for place in reversed(range(len(synapse.operations))):
        match synapse.operations[place]:
            case Dense() | Conv():
                return place
            case SumPool(padding=(0, 0)) | AvgPool(padding=(0, 0)):
                continue
            case _:
                return None
    return None


def obstacle(synapses: tuple[Synapse, ...]) -> str:
    """What nothing can be folded into: the end of a synapse without weights, or ""."""
    for synapse in synapses:
        if _weights(synapse) is None:
            last = synapse.operations[-1] if synapse.operations else None
            return f"'{last.name}'" if last else f"what '{synapse.source}' emits"
    return ""


def fold(synapses: tuple[Synapse, ...], gain: Wide, shift: Wide) -> tuple[Synapse, ...]:
    """Multiply the current of the ``synapses`` by ``gain`` and add ``shift``, both (C,).

    There must be no `obstacle`.
    """
    return tuple(
        _folded(synapse, gain, shift if index == 0 else np.zeros_like(shift))
        for index, synapse in enumerate(synapses)
    )


def _folded(synapse: Synapse, gain: Wide, shift: Wide) -> Synapse:
    place = _weights(synapse)
    operations = list(synapse.operations)
    if place is None:
        raise ValueError("nothing to fold into")
    last: Any = operations[place]
    added = [math.prod(op.kernel) for op in operations[place:] if isinstance(op, SumPool)]
    shift = shift / math.prod(added)
    weight = last.weight * gain.reshape(-1, *[1] * (last.weight.ndim - 1))
    bias = None if last.bias is None else last.bias * gain
    if shift.any():
        bias = shift if bias is None else bias + shift
    operations[place] = replace(last, weight=weight, bias=bias)
    return replace(synapse, operations=tuple(operations))


def averages_as_sums(synapse: Synapse) -> Synapse:
    """Sum pools in the place of average pools, whose divisors go into the weights of the synapse:
    of those behind the weights, and of those over a number that is no power of two.

    Either would take the values off every grid. Without weights nothing changes.
    """
    weights = [n for n, op in enumerate(synapse.operations) if isinstance(op, Dense | Conv)]
    if not weights:
        return synapse
    (place,) = weights
    before = after = 1
    operations: list[Operation] = list(synapse.operations)
    for index, op in enumerate(operations):
        if isinstance(op, AvgPool):
            count = math.prod(op.kernel)
            if index > place:
                after *= count
            elif count & (count - 1):
                before *= count
            else:
                continue
            operations[index] = SumPool(op.name, op.kernel, op.stride, op.padding)
    weighted: Any = operations[place]
    operations[place] = replace(
        weighted,
        weight=weighted.weight / (before * after),
        bias=None if weighted.bias is None else weighted.bias / after,
    )
    return replace(synapse, operations=tuple(operations))
