"""Replay: was any other answer possible? Every recorded decision is judged by itself.

With u the exact membrane, given what the neuron received and emitted, and E a bound on what
float32 can make of it, a decision is *certain* (abs(u - threshold) > E, or E = 0), *within
rounding* (both answers are possible), or *wrong*: certain, and the record says otherwise. A value
of the output is wrong outside its bound, and certain where the bound is 0.

Here every neuron is computed in float64. That is the definition, and it serves outputs and the
witness of a trained module; `proof` gives the same judgement of spikes much faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.dynamics import Cell
from ..network.layers import Layer, Network
from ..network.neurons import Spiking
from ..network.simulate import frames_of
from ..network.trace import Witness
from .balls import Ball, Terms
from .compare import First
from .forced import Recording, exact_cell, forced, maps_of, membranes
from .gather import chosen_membranes

ROUNDING = 1e-4
"""Share of the sum of the terms' magnitudes within which float32 and an unfolded normalisation
may put a current of the trained module."""

Values = NDArray[Any]


@dataclass(frozen=True)
class LayerReplay:
    """Per layer: decisions (or output values) judged, spikes among them, how many could have been
    either way, how many are wrong, the first wrong one, and at how many a membrane met the
    threshold exactly, so that > and >= differ for certain."""

    layer: str
    judged: int
    spikes: int
    within_rounding: int
    wrong: int
    first: First | None
    ties: int = 0

    @property
    def certain(self) -> int:
        """How many could have had no other answer, and had this one."""
        return self.judged - self.within_rounding - self.wrong

    def __add__(self, later: LayerReplay) -> LayerReplay:
        """The same layer on more samples."""
        return replace(
            self,
            judged=self.judged + later.judged,
            spikes=self.spikes + later.spikes,
            within_rounding=self.within_rounding + later.within_rounding,
            wrong=self.wrong + later.wrong,
            first=self.first or later.first,
            ties=self.ties + later.ties,
        )


@dataclass(frozen=True, eq=False)
class Judged:
    """A layer's judgement, (T, B, *shape): which are wrong, which are within rounding; and at how
    many decisions the membrane met the threshold exactly."""

    wrong: NDArray[np.bool_]
    within: NDArray[np.bool_]
    ties: int


def judge(cell: Cell, u: Ball, emitted: Values) -> tuple[Values, Values, Values]:
    """One step's decisions or values: which are wrong, within rounding, and exact ties."""
    if cell.threshold is None:
        wrong = ~(abs(emitted - u.value) <= u.error)
        return wrong, ~wrong & (u.error > 0), np.zeros_like(wrong)
    exact = u.error == 0
    certain = exact | (abs(u.value - cell.threshold) > u.error)
    wrong = certain & (cell.decide(u.value) != (emitted != 0))
    return wrong, ~certain, exact & (u.value == cell.threshold)


def judge_all(recording: Recording, layer: Layer) -> Judged:
    """Every neuron of a layer at every step, in float64."""
    cell, emitted = exact_cell(layer, recording.network), recording.sent[layer.name].values
    wrong, within, ties = np.zeros(emitted.shape, bool), np.zeros(emitted.shape, bool), 0
    for step, u in enumerate(membranes(cell, partial(recording.current, layer), emitted)):
        wrong[step], within[step], tied = judge(cell, u, emitted[step])
        ties += int(np.count_nonzero(tied))
    return Judged(wrong, within, ties)


def result(recording: Recording, layer: Layer, judged: Judged, offset: int) -> LayerReplay:
    """A layer's judgement in numbers; ``offset``: samples before these."""
    emitted = recording.sent[layer.name].values
    wrong, within = judged.wrong, judged.within
    spiking = isinstance(layer.neuron, Spiking)
    if layer.name == recording.network.output:  # also what is not finite: there 0 stands for it
        wrong = wrong | (recording.outputs.reshape(emitted.shape) != emitted)
    spikes = int(np.count_nonzero(emitted)) if spiking else 0
    near = int(np.count_nonzero(within & ~wrong))
    first = _first(recording, layer, wrong, offset) if wrong.any() else None
    return LayerReplay(layer.name, emitted.size, spikes, near, int(wrong.sum()), first, judged.ties)


def _first(recording: Recording, layer: Layer, wrong: Values, offset: int) -> First:
    """The first wrong of a layer by sample, step and neuron, with its membrane and bound."""
    steps, samples = wrong.shape[:2]
    by_sample = wrong.reshape(steps, samples, layer.size).transpose(1, 0, 2)
    sample, step, flat = (int(i) for i in np.argwhere(by_sample)[0])
    neuron = tuple(int(i) for i in np.unravel_index(flat, layer.shape))
    one = chosen_membranes(recording, layer, np.array([sample]), np.array([flat]))
    cell, u, emitted = next(islice(one, step, None))
    value, bound, found = float(u.value[0]), float(u.error[0]), float(emitted[0])
    place = (layer.name, offset + sample, step, neuron)
    is_output = layer.name == recording.network.output
    output = float(recording.outputs[step, sample, flat]) if is_output else found
    if cell.threshold is None:
        return First("output", *place, value, output, bound=bound)
    if output != found:
        return First("output", *place, found, output)
    return First("spike", *place, 1 - found, found, value, float(cell.threshold[0]), bound)


def replay_all(recording: Recording, offset: int = 0) -> tuple[LayerReplay, ...]:
    """Judge every recorded layer in float64: the definition of what `proof` does faster."""
    recorded = [x for x in recording.network.layers if recording.recorded(x)]
    return tuple(result(recording, x, judge_all(recording, x), offset) for x in recorded)


def unfolded(terms: Terms) -> Ball:
    """The sum as a module has it whose normalisation is not folded into its weights."""
    share = ROUNDING if terms.kind == "computed" else 0.0
    return Ball(terms.value, terms.error + share * terms.size)


def replay(network: Network, witness: Witness) -> tuple[LayerReplay, ...]:
    """Judge what a trained module recorded against its folded network, layer by layer."""
    witness.check(network)
    frames, _ = frames_of(network, network.frames(witness.inputs), len(witness.outputs))
    seen = (witness.spikes, witness.outputs)
    return replay_all(forced(network, frames, *seen, unfolded, maps_of(network)))
