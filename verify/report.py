"""Findings to one plain document: `report.json`, and what the page shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import __version__
from ..hardware.chip import Chip
from ..hardware.chip_file import load_chip
from ..hardware.counts import FirstLayer
from ..hardware.energy import energy, plan
from ..hardware.mapping import Mapping as Mapped
from ..network.contract import Integer
from ..network.fanout import is_graded, synaptic_operations
from ..network.graph import graph_sha256
from ..network.layers import Network
from ..network.neurons import Spiking
from ..network.trace import Trace, predictions
from .chain import Arrow, Findings
from .compare import Differences, First
from .quantised import quantisation
from .recorded import RECORDING
from .replay import LayerReplay
from .statistics import Accuracy, Paired, accuracy
from .verdict import Outcome, Strength

SCHEMA = 1
ALL_STEPS = 16
"""Up to so many timesteps a report lists each."""
FLOAT_PRICES = (("cmos45", "fp32"), ("cmos45", "int8"))
INTEGER_PRICES = (("loihi1", None), ("loihi1-nahuku", None))
"""Chip file and number format that price a float or an integer network's trace."""

MEANING = (
    "PASSED means: on the samples named here, every runtime marked 'proven' emitted exactly the "
    "spikes and outputs of the reference executor on network.nir, and its currents agreed bit for "
    "bit on the probe. Where the certificate holds, every order of summation gives these values, "
    "so batch size, thread count and library do not matter for any input in range. It does not "
    "mean that a chip was used: the integer runtime is a bit-exact emulation of Loihi's arithmetic "
    "on this CPU. Energy figures are estimates from published prices, not measurements. The arrows "
    "to 'snapped' and 'integer' change the network; there the change is counted, not excused."
)

REPLAY_MEANING = (
    "A runtime marked 'certified by replay' runs a network whose sums are rounded, so its spikes "
    "need not be the reference's. There PASSED means: given the spikes that each neuron really "
    "received and emitted on these samples, no spike and no output is other than float32 can make "
    "it in some order of summation (not by Winograd, FFT or TF32); a wrong one is a proof of a "
    "fault in its own layer. It does not mean that there is no fault that never moved a spike on "
    "these samples, and a comparison >= in place of > cannot be told apart unless a membrane met "
    "the threshold exactly where nothing was rounded."
)
"""Added to `MEANING` where a run was certified by replay."""


def plain(value: Any) -> Any:
    """Values that JSON and UTF-8 can hold: a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _accuracy(value: Accuracy | None) -> dict[str, Any] | None:
    if value is None:
        return None
    low, high = value.interval
    return {
        "correct": value.correct,
        "n": value.n,
        "share": value.share,
        "low": low,
        "high": high,
    }


def _paired(value: Paired | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        **asdict(value),
        "difference": value.difference,
        "half_width": value.half_width,
        "p_value": value.p_value,
    }


def _first(value: First | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {**asdict(value), "neuron": list(value.neuron), "sentence": value.sentence()}


def _differences(network: Network, value: Differences | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "samples": value.samples,
        "layers": [
            {
                "layer": layer.name,
                "decisions": value.decisions.get(layer.name, 0),
                "spikes": value.spikes.get(layer.name, 0),
                "changed": value.changed.get(layer.name, 0),
                "currents": value.currents_compared.get(layer.name, 0),
                "currents_changed": value.currents_changed.get(layer.name, 0),
            }
            for layer in network.layers
        ],
        "outputs": value.outputs_compared,
        "outputs_changed": value.outputs_changed,
        "first": _first(value.first),
    }


def _arrow(network: Network, arrow: Arrow) -> dict[str, Any]:
    return {
        "from": arrow.source,
        "to": arrow.target,
        "strength": str(arrow.strength),
        "verdict": str(arrow.verdict.outcome),
        "sentence": arrow.verdict.sentence,
        "accuracy": _accuracy(arrow.accuracy),
        "paired": _paired(arrow.paired),
        "differences": _differences(network, arrow.differences),
        "replay": [_replay(layer) for layer in arrow.replay],
    }


def _replay(layer: LayerReplay) -> dict[str, Any]:
    return {**asdict(layer), "certain": layer.certain, "first": _first(layer.first)}


def _network(network: Network) -> dict[str, Any]:
    parameters = sum(
        values.size
        for _, _, operation in network.operations()
        for values in (getattr(operation, name, None) for name in ("weight", "bias", "scale"))
        if values is not None
    )
    return {
        "graph_sha256": graph_sha256(network),
        "steps": network.contract.steps,
        "compare": network.contract.compare,
        "reset": network.contract.reset,
        "reset_time": network.contract.reset_time,
        "arithmetic": network.contract.arithmetic.kind,
        "parameters": parameters,
        "layers": [
            {
                "layer": layer.name,
                "neuron": type(layer.neuron).__name__,
                "shape": list(layer.shape),
                "neurons": layer.size,
                "from": [synapse.source for synapse in layer.synapses],
            }
            for layer in network.layers
        ],
    }


def _spikes(network: Network, trace: Trace) -> int:
    spiking = (layer.name for layer in network.layers if isinstance(layer.neuron, Spiking))
    return sum(int(trace.fired[name].sum()) for name in spiking)


@dataclass(frozen=True, eq=False)
class _Price:
    """A chip and number format, and the network mapped onto it, for every number of steps."""

    label: str
    chip: Chip
    number_format: str | None
    mapping: Mapped | None


def _prices(network: Network) -> list[_Price]:
    integer = isinstance(network.contract.arithmetic, Integer)
    first_layer: FirstLayer = "host" if is_graded(network, network.input) else "none"
    found = []
    for name, number_format in INTEGER_PRICES if integer else FLOAT_PRICES:
        chip = load_chip(name)
        label = name if number_format is None else f"{name} {number_format}"
        mapped = plan(network, chip, first_layer)
        found.append(_Price(label, chip, number_format, mapped))
    return found


def _by_steps(findings: Findings, name: str) -> Iterator[dict[str, Any]]:
    """What runs of fewer steps would have shown: prefixes of the trace."""
    network, labels = findings.networks[name], findings.request.labels
    prices = _prices(network)
    for steps in _shown(findings.traces[name].steps):
        trace = findings.traces[name].until(steps)
        operations = synaptic_operations(network, trace.fired)
        synops = sum(int(np.sum(layer.synops)) for layer in operations.values())
        scored = None if labels is None else accuracy(predictions(trace.outputs)[-1], labels)
        yield {
            "network": name,
            "steps": steps,
            "accuracy": _accuracy(scored),
            "spikes_per_sample": _spikes(network, trace) / trace.samples,
            "synops_per_sample": synops / trace.samples,
            "energy": {
                price.label: energy(
                    network,
                    trace,
                    price.chip,
                    number_format=price.number_format,
                    mapping=price.mapping,
                ).to_dict()
                for price in prices
            },
        }


def _shown(steps: int) -> list[int]:
    """The numbers of timesteps a report lists: all of a few, powers of two of many."""
    if steps <= ALL_STEPS:
        return list(range(1, steps + 1))
    return [2**n for n in range(steps.bit_length()) if 2**n < steps] + [steps]


def _rates(findings: Findings) -> list[dict[str, Any]]:
    """Mean firing rate per layer and step, of the float network and of the integer one."""
    rows = []
    for name, network in findings.networks.items():
        trace = findings.traces[name]
        for layer in network.layers:
            if isinstance(layer.neuron, Spiking):
                fired = trace.fired[layer.name].reshape(trace.steps, -1).sum(axis=1)
                rate = fired / (trace.samples * layer.size)
                rows.append({"network": name, "layer": layer.name, "rate": rate.tolist()})
    return rows


def _sentence(findings: Findings, name: str) -> str:
    arrows = findings.arrows
    failed = [arrow for arrow in arrows if arrow.verdict.outcome is Outcome.FAILED]
    if failed:
        arrow = failed[0]
        return f"{name}: {arrow.source} to {arrow.target} failed: {arrow.verdict.sentence}"
    stuck = [arrow for arrow in arrows if arrow.verdict.outcome is Outcome.COULD_NOT_RUN]
    if stuck:
        arrow = stuck[0]
        return f"{name}: nothing can be said of {arrow.target}: {arrow.verdict.sentence}"
    n = len(findings.request.x)
    # A recording may be of fewer samples, layers and steps: it speaks for itself.
    heard = "".join(
        f"; {RECORDING}: {arrow.verdict.sentence}" for arrow in arrows if arrow.target == RECORDING
    )
    for strength, words in (
        (Strength.PROVEN, "exactly the exported network's spikes on"),
        (Strength.REPLAYED, "certified by replay on"),
    ):
        held = [arrow for arrow in arrows if arrow.strength is strength]
        runtimes = [arrow.target for arrow in held if arrow.target != RECORDING]
        if runtimes:
            return f"{name}: {words} {', '.join(runtimes)}; {n:,} samples{heard}"
    return f"{name}: no runtime was asked for; {n:,} samples ran on the reference{heard}"


def report(findings: Findings, name: str, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole report as plain values; the same findings give the same document.

    ``name`` says what was verified; ``facts`` are added under ``facts`` (versions, data set).
    """
    network = findings.request.network
    integer = findings.networks.get("integer")
    arithmetic = integer.contract.arithmetic if integer is not None else None
    replayed = [arrow.strength is Strength.REPLAYED for arrow in findings.arrows]
    meaning = [] if replayed and all(replayed) else [MEANING]
    meaning += [REPLAY_MEANING] if any(replayed) else []
    document = {
        "schema": SCHEMA,
        "snnpipe": __version__,
        "name": name,
        "verdict": str(findings.outcome),
        "sentence": _sentence(findings, name),
        "meaning": " ".join(meaning),
        "samples": len(findings.request.x),
        "trained_accuracy": _accuracy(findings.request.trained),
        "network": _network(network),
        "integer": None
        if integer is None or not isinstance(arithmetic, Integer)
        else {
            **_network(integer),
            "weight_bits": arithmetic.weight_bits,
            "host_layers": sorted(arithmetic.host_scale),
        },
        "quantisation": quantisation(findings),
        "chain": [_arrow(network, arrow) for arrow in findings.arrows],
        "certificate": [layer.to_dict() for layer in findings.certificate],
        "by_steps": [row for which in findings.networks for row in _by_steps(findings, which)],
        "rates": _rates(findings),
        "facts": dict(facts or {}),
    }
    return {key: plain(value) for key, value in document.items()}
