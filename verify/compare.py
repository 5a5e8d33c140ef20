"""Two runs of one network on the same inputs: what differs, and the first instant it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CouldNotRunError
from ..network.layers import Layer, Network
from ..network.neurons import Spiking
from ..network.simulate import simulate
from ..network.trace import Record, Trace, unpack


@dataclass(frozen=True)
class First:
    """The first wrong value: which, where, what was expected and what was found.

    ``kind``: spike, current or output. ``neuron``: index in the layer's shape. ``membrane`` and
    ``threshold`` of the reference just before its decision, None for a layer without neurons.
    ``bound``: how far a right evaluation can be from the membrane or the expected output, where
    that is what was judged.
    """

    kind: str
    layer: str
    sample: int
    step: int
    neuron: tuple[int, ...]
    expected: float
    found: float
    membrane: float | None = None
    threshold: float | None = None
    bound: float | None = None

    def sentence(self) -> str:
        """One sentence for a person; steps count from 1, samples from 0."""
        place = f"sample {self.sample}, layer '{self.layer}', step {self.step + 1}, neuron " + (
            f"{list(self.neuron)}"
        )
        text = f"{place}: {self.kind} {self.found:.9g} instead of {self.expected:.9g}"
        bound = "" if self.bound is None else f" ± {self.bound:.2g}"
        if self.membrane is not None:
            return f"{text} (membrane {self.membrane:.9g}{bound}, threshold {self.threshold:.9g})"
        return text + bound


@dataclass
class Differences:
    """Counts over all batches: per layer decisions, reference spikes, spikes and currents that
    differ; output values that differ; the first wrong value, earliest layer first."""

    decisions: dict[str, int] = field(default_factory=dict)
    spikes: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    currents_compared: dict[str, int] = field(default_factory=dict)
    currents_changed: dict[str, int] = field(default_factory=dict)
    outputs_compared: int = 0
    outputs_changed: int = 0
    samples: int = 0
    first: First | None = None

    @property
    def none(self) -> bool:
        """Whether everything compared was equal."""
        changed = (*self.changed.values(), *self.currents_changed.values(), self.outputs_changed)
        return not any(changed)


def check_trace(reference: Trace, found: Trace) -> None:
    """Raise CouldNotRunError (E_TRACE) where a run does not hold what the reference's holds."""
    pairs: list[tuple[str, NDArray[Any], NDArray[Any] | None]]
    pairs = [("outputs", reference.outputs, found.outputs)]
    pairs += [(f"spikes of '{k}'", v, found.spikes.get(k)) for k, v in reference.spikes.items()]
    currents = reference.currents.keys() & found.currents.keys()
    pairs += [(f"currents of '{k}'", reference.currents[k], found.currents[k]) for k in currents]
    for what, expected, values in pairs:
        if values is None or values.shape != expected.shape:
            has = "nothing" if values is None else f"shape {list(values.shape)}"
            raise CouldNotRunError(
                "E_TRACE",
                f"the run's trace holds {has} as {what}; expected {list(expected.shape)}",
            )


def _add(counts: dict[str, int], name: str, number: int) -> None:
    counts[name] = counts.get(name, 0) + number


def _differing_bits(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(a ^ b).sum())


def _unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Values that are not the same number; NaN differs from everything."""
    return np.asarray(a != b)


def count(network: Network, reference: Trace, found: Trace, total: Differences) -> None:
    """Add one batch's differences to ``total``."""
    for name, bits in reference.spikes.items():
        _add(total.decisions, name, int(bits.shape[0] * bits.shape[1]) * network.layer(name).size)
        _add(total.spikes, name, int(np.bitwise_count(bits).sum()))
        _add(total.changed, name, _differing_bits(bits, found.spikes[name]))
    for name in reference.currents.keys() & found.currents.keys():
        a, b = reference.currents[name], found.currents[name]
        _add(total.currents_compared, name, a.size)
        _add(total.currents_changed, name, int(_unequal(a, b).sum()))
    total.outputs_compared += reference.outputs.size
    total.outputs_changed += int(_unequal(reference.outputs, found.outputs).sum())
    total.samples += reference.samples


def compare(
    network: Network,
    x: NDArray[np.float32],
    reference: Trace,
    found: Trace,
    total: Differences,
) -> None:
    """`count` two runs that must be equal, and keep the first wrong value.

    ``x`` are the frames both received, (B, *input_shape) or (T, B, *input_shape).
    """
    before = total.samples
    count(network, reference, found, total)
    if total.first is None and not total.none:
        total.first = _first(network, x, reference, found, before)


def _first(
    network: Network, x: NDArray[np.float32], reference: Trace, found: Trace, offset: int
) -> First | None:
    """Earliest layer, then sample, step, neuron: all that feeds that layer was right."""
    for layer in network.layers:
        for kind, a, b in _pairs(network, layer, reference, found):
            wrong = np.argwhere(_unequal(a, b).transpose(1, 0, *range(2, a.ndim)))
            if len(wrong):
                sample, step, *rest = (int(i) for i in wrong[0])
                neuron = tuple(rest)
                if kind == "current" or a.shape[2:] != layer.shape:
                    neuron = tuple(int(i) for i in np.unravel_index(rest[0], layer.shape))
                place = (step, sample, *rest)
                membrane, threshold = membrane_at(network, layer, x, sample, step, neuron)
                return First(
                    kind,
                    layer.name,
                    offset + sample,
                    step,
                    neuron,
                    float(a[place]),
                    float(b[place]),
                    membrane,
                    threshold,
                )
    return None


def _pairs(
    network: Network, layer: Layer, reference: Trace, found: Trace
) -> Iterable[tuple[str, NDArray[Any], NDArray[Any]]]:
    """What can be compared of a layer: its current first, then its spikes or outputs."""
    name = layer.name
    if name in reference.currents and name in found.currents:
        yield "current", reference.currents[name], found.currents[name]
    if name in reference.spikes:
        yield (
            "spike",
            unpack(reference.spikes[name], layer.shape),
            unpack(found.spikes[name], layer.shape),
        )
    if name == network.output:
        yield "output", reference.outputs, found.outputs


def membrane_at(
    network: Network,
    layer: Layer,
    x: NDArray[np.float32],
    sample: int,
    step: int,
    neuron: tuple[int, ...],
) -> tuple[float | None, float | None]:
    """The reference's membrane before the decision, and the threshold it is held against."""
    if not isinstance(layer.neuron, Spiking):
        return None, None
    seen: list[float] = []

    def watch(name: str, t: int, u: NDArray[Any], _current: NDArray[Any]) -> None:
        if name == layer.name and t == step:
            seen.append(float(u[0][neuron]))

    static = x.ndim == len(network.input_shape) + 1
    one = x[sample : sample + 1] if static else x[: step + 1, sample : sample + 1]
    simulate(network, one, step + 1, Record(spikes=0), watch=watch)
    integer = network.contract.arithmetic.kind == "integer"
    threshold = float(np.broadcast_to(layer.neuron.threshold, layer.shape)[neuron])
    return seen[0], threshold * 64 if integer else threshold
