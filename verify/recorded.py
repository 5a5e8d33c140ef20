"""A recording from elsewhere, held against the reference: equal, equal but late, or wrong where.

Machines hand spikes on a step late from layer to layer, so every layer is compared at each
lateness that a pipeline can have, and judged at the one that leaves the least unexplained:
differences, and values before the first step. What stands there, and behind the reference's last
step, belongs to no step of it: it is counted and not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.grid import exact_sums
from ..network.layers import Layer, Network
from ..network.neurons import Spiking
from ..network.simulate import simulate
from ..network.trace import Trace, unpack
from .chain import BATCH, Arrow
from .compare import Differences, First, membrane_at
from .recording import Recording
from .verdict import Outcome, Strength, Verdict

Values = NDArray[Any]
RECORDING = "recording"
"""What the chain calls it."""


@dataclass
class _AtLateness:
    """One layer, compared with the reference so many steps late."""

    late: int
    steps: int
    spikes: int = 0
    changed: int = 0
    before: int = 0
    """What was recorded before the reference's first step."""
    first: tuple[int, ...] | None = None
    """Sample, step and neuron of the first difference."""
    pair: tuple[float, float] = (0.0, 0.0)

    def add(self, layer: Layer, a: Values, b: Values, offset: int) -> None:
        """Compare a batch of the reference with what was recorded, (T, B, …) each."""
        spiking = isinstance(layer.neuron, Spiking)
        self.before += _fired(layer, b[: self.late])
        a, b = a[: self.steps], b[self.late : self.late + self.steps]
        self.spikes += _fired(layer, a)
        number = int(np.bitwise_count(a ^ b).sum() if spiking else (a != b).sum())
        self.changed += number
        if number and self.first is None:
            if spiking:
                a, b = unpack(a, layer.shape), unpack(b, layer.shape)
            else:
                a, b = (x.reshape(*x.shape[:2], *layer.shape) for x in (a, b))
            at = np.argwhere((a != b).swapaxes(0, 1))[0].tolist()
            place = (at[1], at[0], *at[2:])
            self.first = (offset + at[0], *at[1:])
            self.pair = (float(a[place]), float(b[place]))


@dataclass
class _Layer:
    """One recorded layer at every lateness, and what no step of the reference belongs to."""

    layer: Layer
    found: list[_AtLateness] = field(default_factory=list)

    @property
    def best(self) -> _AtLateness:
        """A lateness at which all steps of the reference are there and equal; else the one that
        leaves the least unexplained. The least of several.

        One at which nothing was expected to happen says nothing, and is not taken. Without the
        values before its first step, a fault in an even train of spikes could be shifted away.
        """
        telling = [x for x in self.found if not x.late or x.spikes]
        whole = self.found[0].steps
        equal = [x for x in telling if not x.changed and x.steps == whole]
        return min(equal or telling, key=lambda x: (x.changed + x.before, x.late))


def hold(
    network: Network,
    x: Values,
    recording: Recording,
    source: str = "network",
    progress: Callable[[int], None] | None = None,
) -> Arrow:
    """The arrow from a network to a recording of its first samples.

    ``x``: stored inputs (B, *stored_shape), at least as many as were recorded; ``source``: what
    the chain calls the network. Raises RequestError (E_TRACE) when there are too few inputs.
    """
    if recording.samples > len(x):
        raise RequestError(
            "E_TRACE",
            f"{recording.source} holds {recording.samples} samples and there are {len(x)} inputs; "
            "hand over the inputs that were recorded, --inputs",
        )
    layers = _compared(network, x, recording, progress or (lambda _: None))
    total = Differences(samples=recording.samples)
    for one in layers:
        _count(total, one, recording.samples)
    exact = exact_sums(network)
    strength = Strength.PROVEN if exact else Strength.MEASURED
    wrong = next((one for one in layers if one.best.changed), None)
    if wrong is not None:
        total.first = _first(network, x, wrong)
    outcome, text = _judged(total, exact)
    sentence = "; ".join([text, *_about(network, layers, recording)])
    return Arrow(source, RECORDING, strength, Verdict(outcome, sentence), None, None, total)


def _compared(
    network: Network, x: Values, recording: Recording, progress: Callable[[int], None]
) -> list[_Layer]:
    steps, recorded = network.contract.steps, recording.steps
    latest = min(len(network.layers) + 1, recorded - 1)
    arrays = recording.arrays
    layers = [_Layer(layer) for layer in network.layers if layer.name in arrays]
    for one in layers:
        one.found += [_AtLateness(n, min(steps, recorded - n)) for n in range(latest + 1)]
    for start in range(0, recording.samples, BATCH):
        part = slice(start, min(start + BATCH, recording.samples))
        truth = simulate(network, network.frames(x[part]), steps)
        for one in layers:
            a, b = _reference(truth, one.layer), arrays[one.layer.name][:, part]
            for found in one.found:
                found.add(one.layer, a, b, start)
        progress(part.stop)
    return layers


def _reference(truth: Trace, layer: Layer) -> Values:
    return truth.spikes.get(layer.name, truth.outputs)


def _count(total: Differences, one: _Layer, samples: int) -> None:
    best, name = one.best, one.layer.name
    compared = best.steps * samples * one.layer.size
    if isinstance(one.layer.neuron, Spiking):
        total.decisions[name], total.spikes[name] = compared, best.spikes
        total.changed[name] = best.changed
    else:
        total.outputs_compared, total.outputs_changed = compared, best.changed


def _first(network: Network, x: Values, one: _Layer) -> First:
    best = one.best
    if best.first is None:
        raise ValueError(f"layer '{one.layer.name}' has no difference")
    sample, step, *neuron = best.first
    frames = network.frames(x[sample : sample + 1])
    place = (0, step, tuple(neuron))
    membrane, threshold = membrane_at(network, one.layer, frames, *place)
    kind = "spike" if isinstance(one.layer.neuron, Spiking) else "output"
    return First(kind, one.layer.name, sample, step, tuple(neuron), *best.pair, membrane, threshold)


def _judged(total: Differences, exact: bool) -> tuple[Outcome, str]:
    decisions = sum(total.decisions.values())
    if total.none:
        return (
            Outcome.PASSED,
            f"identical on {total.samples:,} samples: {decisions:,} spike decisions, "
            f"{total.outputs_compared:,} outputs",
        )
    spikes = sum(total.changed.values())
    text = f"{spikes:,} spikes and {total.outputs_changed:,} outputs differ"
    if total.first is not None:
        text += f"; first: {total.first.sentence()}"
    if exact:
        return Outcome.FAILED, text
    return (
        Outcome.COULD_NOT_RUN,
        f"{text}; the sums of this network are not exact, so rounding may be all of it",
    )


def _fired(layer: Layer, values: Values) -> int:
    spiking = isinstance(layer.neuron, Spiking)
    return int((np.bitwise_count(values) if spiking else values != 0).sum())


def _about(network: Network, layers: list[_Layer], recording: Recording) -> Iterator[str]:
    """What belongs to the verdict: lateness, what was not judged, how the axes were read."""
    late = [f"'{x.layer.name}' {x.best.late}" for x in layers if x.best.late]
    steps = {x.best.steps for x in layers}
    yield f"judged on {' or '.join(map(str, sorted(steps)))} of {network.contract.steps} steps"
    if late:
        yield f"the recording is late, in steps: {', '.join(late)}"
    before = sum(one.best.before for one in layers)
    ends = [(x, recording.arrays[x.layer.name][x.best.late + x.best.steps :]) for x in layers]
    after = sum(_fired(one.layer, values) for one, values in ends)
    if before or after:
        yield (
            f"{before:,} values before the reference's first step and {after:,} behind its last "
            "are not judged"
        )
    silent = [f"'{x.layer.name}'" for x in layers if not x.best.spikes]
    if silent:
        yield f"nothing fired in {', '.join(silent)}, so this says nothing of firing there"
    orders = sorted(set(recording.axes.values()))
    yield f"axes read as {', '.join(orders)}"
