"""The replay proof of a float run: no spike of it could have been otherwise but by rounding.

The judgement is that of `replay`, with the bound of `balls` for any float32 evaluation. If a
runtime evaluates the contract at a neuron, in float32 and in any order of summation, then its
membrane is within E of the exact one at every step (induction over the steps: both start at 0,
both take a current from the same recorded inputs, both are reset by the same recorded spikes). So
*wrong* proves a fault of this neuron, at this step or since its last reset, whatever happened
before it in the network. The reverse does not hold: a fault that never moved a decision on these
samples is not seen, nor is ``>=`` for ``>`` unless a membrane met the threshold exactly.

To compute all in float64 is slow. So a screen in float32 comes first, with a bound E' per neuron
that holds for every input of the batch. The screen is a float32 evaluation itself: its membrane is
within E' of the exact one, so where it is further than 2*E' from the threshold the decision is
certain. Only the rest, a few in ten thousand, is gathered and judged exactly.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.dynamics import Cell
from ..network.layers import Conv, Conv1d, Flatten, Layer, Network, Operation, Synapse
from ..network.linear import apply
from ..network.neurons import Spiking
from ..network.node_fields import LARGEST
from ..network.shapes import shape_after
from ..network.simulate import frames_of
from ..network.trace import Trace
from .balls import Ball, Terms, rounded
from .forced import Recording, arriving, forced, maps_of, membranes
from .gather import chosen_membranes, fan_in
from .replay import Judged, LayerReplay, judge, judge_all, result

MARGIN = 2.1
"""Bounds within which a screened decision is not certain; what is above 2 pays for the rounding of
the bound itself, which is computed in float32 (enough for 100,000 steps)."""
MEMORY = 128 * 2**20
"""Bytes that the samples judged at once may take, roughly."""
AT_ONCE = 2**20
"""Inputs gathered at once."""

Values = NDArray[Any]


def prove(
    network: Network, frames: Values, trace: Trace, offset: int = 0
) -> tuple[LayerReplay, ...]:
    """Judge a float32 run layer by layer; ``trace`` holds the spikes of all its samples.

    ``frames``: what it was shown, (B, *input_shape) or (T, B, *input_shape); ``offset``: samples
    before these. `compare.check_trace` says whether the trace holds what is needed. Raises
    RequestError (E_RANGE) where values leave float32.
    """
    frames, _ = frames_of(network, frames.astype(np.float32, copy=False), trace.steps)
    rows = max(1, MEMORY // _bytes(network, trace.steps))
    maps, parts = maps_of(network), []
    for start in range(0, frames.shape[1], rows):
        part = slice(start, start + rows)
        spikes = {name: bits[:, part] for name, bits in trace.spikes.items()}
        outputs = trace.outputs[:, part]
        recording = forced(network, frames[:, part], spikes, outputs, rounded, maps)
        layers = filter(recording.recorded, network.layers)
        parts.append([result(recording, x, _judged(recording, x), offset + start) for x in layers])
    return tuple(reduce(add, layer) for layer in zip(*parts, strict=True))


def _judged(recording: Recording, layer: Layer) -> Judged:
    if not isinstance(layer.neuron, Spiking):
        for step in range(recording.steps):
            _in_range(layer, recording.current(layer, step).reach)
        return judge_all(recording, layer)
    return _screened(recording, layer)


def _bytes(network: Network, steps: int) -> int:
    """What one sample takes, roughly: the windows of one step, and spikes and verdicts of all."""
    largest = 0
    for layer in network.layers:
        for synapse in layer.synapses:
            shape = network.shape_of(synapse.source)
            for op in synapse.operations:
                shape = shape_after(op, shape)
                if isinstance(op, Conv | Conv1d):
                    places = int(np.prod(shape[1:]))
                    largest = max(largest, places * op.weight[0].size * op.groups)
    return 4 * largest + 8 * steps * sum(layer.size for layer in network.layers)


def _in_range(layer: Layer, reach: Any) -> None:
    """Refuse what float32 may not hold: an infinity is no sum, and no bound holds beyond it."""
    largest = float(np.max(reach))
    if not largest <= LARGEST:
        raise RequestError(
            "E_RANGE",
            f"layer '{layer.name}': values reach {largest:.3g}, beyond what float32 holds; the "
            "replay proves nothing of a run that overflows",
        )


def _static_bound(recording: Recording, layer: Layer) -> Values:
    """A bound on a layer's current that holds at every step of the batch, (1, *shape), float32.

    Raises RequestError (E_RANGE) where a sum can leave float32.
    """

    def through(operation: Operation, terms: Terms) -> Terms:
        if isinstance(operation, Flatten):
            return recording.through(operation, terms)
        map_ = recording.maps[operation.name]
        return replace(map_, value=map_.size).spread(terms, recording.rule)

    def largest(synapse: Synapse) -> Terms:
        every = recording.sent[synapse.source].largest()
        network = recording.network
        return arriving(
            network, layer, synapse, synapse.delay, lambda _: every, through, lambda x: x
        )

    total = reduce(add, map(largest, layer.synapses))
    _in_range(layer, total.size)
    bound: Values = recording.rule(total).error.astype(np.float32)
    return bound


def _float32_current(recording: Recording, layer: Layer, bound: Values, step: int) -> Ball:
    network = recording.network

    def arrived(synapse: Synapse) -> Values:
        values = recording.sent[synapse.source].values

        def sent(at: int) -> Values:
            found: Values = values[max(at, 0)].astype(np.float32)
            return found if at >= 0 else np.zeros_like(found)

        return arriving(network, layer, synapse, step, sent, apply, np.zeros_like)

    return Ball(reduce(add, map(arrived, layer.synapses)), bound)


def _screened(recording: Recording, layer: Layer) -> Judged:
    """The judgement of `judge_all`, in float32 where that suffices."""
    emitted = recording.sent[layer.name].values
    cell = Cell.of(layer.neuron, recording.network.contract, lambda values: values)
    wrong, near = np.zeros(emitted.shape, bool), np.zeros(emitted.shape, bool)
    current = partial(_float32_current, recording, layer, _static_bound(recording, layer))
    for step, u in enumerate(membranes(cell, current, emitted)):
        _in_range(layer, abs(u.value))
        near[step] = abs(u.value - cell.threshold) <= MARGIN * u.error
        wrong[step] = ~near[step] & (cell.decide(u.value) != emitted[step])
    return _gathered(recording, layer, wrong, near)


def _gathered(recording: Recording, layer: Layer, wrong: Values, near: Values) -> Judged:
    """Judge what the screen left open, exactly, and add what is wrong among it to ``wrong``."""
    flat = (*near.shape[:2], layer.size)
    wrong, near = wrong.reshape(flat), near.reshape(flat)
    within, ties = np.zeros(flat, bool), 0
    samples, neurons = np.nonzero(near.any(axis=0))
    rows = max(1, AT_ONCE // fan_in(recording.network, layer))
    for start in range(0, len(samples), rows):
        place = (samples[start : start + rows], neurons[start : start + rows])
        for step, (cell, u, emitted) in enumerate(chosen_membranes(recording, layer, *place)):
            open_ = near[step][place]
            faulty, undecided, tied = judge(cell, u, emitted)
            wrong[step][place] |= faulty & open_
            within[step][place] = undecided & open_
            ties += int(np.count_nonzero(tied & open_))
    shape = (*flat[:2], *layer.shape)
    return Judged(wrong.reshape(shape), within.reshape(shape), ties)
