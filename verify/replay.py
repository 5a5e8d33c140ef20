"""Replay: a layer is given the spikes it really received and follows the spikes it really emitted.

Nothing cascades: each decision is judged by itself, so a fault shows in its own layer only. Here
the recording is the witness of the trained module, and the judge is the folded network in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network import dynamics
from ..network.contract import Contract
from ..network.layers import Layer, Network
from ..network.linear import through
from ..network.neurons import IF, LIF, Sum, decay_of
from ..network.trace import Witness, unpack
from .compare import First

ROUNDING = 1e-4
"""Share of the sum of the terms' magnitudes within which float32 and an unfolded normalisation
may put a membrane on the other side of its threshold."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LayerReplay:
    """Per layer: decisions (or output values) judged, how many differ within rounding, how many
    are wrong, and the first wrong one."""

    layer: str
    judged: int
    spikes: int
    within_rounding: int
    wrong: int
    first: First | None


def replay(network: Network, witness: Witness) -> tuple[LayerReplay, ...]:
    """Judge a witness against a float network, layer by layer, teacher-forced, in float64."""
    witness.check(network)
    steps = witness.outputs.shape[0]
    frame = network.contract.frames(witness.inputs).astype(np.float64)
    values: dict[str, Values] = {network.input: np.broadcast_to(frame, (steps, *frame.shape))}
    magnitudes: dict[str, Values] = {network.input: abs(values[network.input])}
    results: list[LayerReplay] = []
    for layer in network.layers:
        current, terms = _current(layer, values, magnitudes)
        if isinstance(layer.neuron, Sum):
            values[layer.name], magnitudes[layer.name] = current, terms
            if layer.name == network.output:
                results.append(_outputs(layer, witness, current, terms))
            continue
        recorded = unpack(witness.spikes[layer.name], layer.shape)
        values[layer.name] = magnitudes[layer.name] = recorded.astype(np.float64)
        results.append(_judge(network.contract, layer, layer.neuron, recorded, current, terms))
    return tuple(results)


def _current(
    layer: Layer, values: dict[str, Values], magnitudes: dict[str, Values]
) -> tuple[Values, Values]:
    """Current and sum of its terms' magnitudes, both (T, B, *shape)."""
    steps, batch = next(iter(values.values())).shape[:2]
    current = np.zeros((steps, batch, *layer.shape))
    terms = np.zeros_like(current)
    for synapse in layer.synapses:
        for t in range(steps):
            current[t] += through(synapse, values[synapse.source][t])
            terms[t] += through(synapse, magnitudes[synapse.source][t], magnitude=True)
    return current, terms


def _judge(
    contract: Contract,
    layer: Layer,
    neuron: LIF | IF,
    recorded: NDArray[np.uint8],
    current: Values,
    terms: Values,
) -> LayerReplay:
    decay = decay_of(neuron).astype(np.float64)
    threshold, v_reset = neuron.threshold.astype(np.float64), neuron.v_reset.astype(np.float64)
    v, size = np.zeros_like(current[0]), np.zeros_like(current[0])
    within = wrong = 0
    first: First | None = None
    for t, spike in enumerate(recorded):
        u = dynamics.integrate(v, current[t], decay)
        size = decay * size + terms[t]
        differs = dynamics.decide(u, threshold, contract.compare) != spike.astype(bool)
        excused = differs & (abs(u - threshold) <= ROUNDING * size)
        within += int(excused.sum())
        faults = np.argwhere(differs & ~excused)
        wrong += len(faults)
        if len(faults) and first is None:
            first = _first(layer, t, faults[0], spike, u, threshold)
        v = dynamics.reset(u, spike, threshold, v_reset, contract.reset)
        if contract.reset == "value":
            size = np.where(spike, abs(v_reset), size)
        else:
            size = size + abs(threshold) * spike
    return LayerReplay(layer.name, recorded.size, int(recorded.sum()), within, wrong, first)


def _first(
    layer: Layer, step: int, place: Any, spike: NDArray[np.uint8], u: Values, threshold: Values
) -> First:
    sample, *neuron = (int(i) for i in place)
    found = int(spike[tuple(place)])
    level = float(np.broadcast_to(threshold, layer.shape)[tuple(neuron)])
    membrane = float(u[tuple(place)])
    return First(
        "spike", layer.name, sample, step, tuple(neuron), 1 - found, found, membrane, level
    )


def _outputs(layer: Layer, witness: Witness, current: Values, terms: Values) -> LayerReplay:
    expected = current.reshape(*current.shape[:2], -1)
    size = terms.reshape(expected.shape)
    error = abs(witness.outputs.astype(np.float64) - expected)
    faults = np.argwhere(~(error <= ROUNDING * size))  # a NaN is a fault
    first = None
    if len(faults):
        step, sample, neuron = (int(i) for i in faults[0])
        place = (step, sample, neuron)
        index = tuple(int(i) for i in np.unravel_index(neuron, layer.shape))
        first = First(
            "output",
            layer.name,
            sample,
            step,
            index,
            float(expected[place]),
            float(witness.outputs[place]),
        )
    inexact = int((error > 0).sum())
    return LayerReplay(layer.name, error.size, 0, inexact - len(faults), len(faults), first)
