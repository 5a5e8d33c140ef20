"""What a network file holds, what it leaves open, and who could take it: `snnpipe check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import plugins
from .errors import RequestError
from .network.check import check
from .network.graph import RawGraph, network_sha256
from .network.graph_file import read_graph
from .network.layers import AvgPool, Conv, Conv1d, Delay, Dense, Layer, Network, Operation, SumPool
from .network.net_file import net_semantics
from .network.nir_file import CONTRACT, read_network
from .network.repairs import interpret
from .network.semantics import PRESETS, Semantics

if TYPE_CHECKING:
    from .inputs import Reading

TAKERS = ("targets", "runtimes")
"""Kinds of plug-ins that a network can be handed to."""


def overview(path: Path, reading: Reading) -> dict[str, Any]:
    """All of it, as plain values; ``problem`` where no semantics reads the file.

    A file without a contract is shown as the first of the presets reads it. Raises RequestError
    when the file cannot be read at all, or not under its contract or the semantics asked for.
    """
    if path.suffix == ".net":
        return _net(path, reading)
    semantics, limits = reading.chosen, reading.limits
    graph = read_graph(path, limits)
    found: dict[str, Any] = {"file": str(path), "contract": CONTRACT in graph.metadata}
    if semantics is not None or found["contract"]:
        notes: list[str] = []
        network = read_network(path, semantics, limits, notes.append)
        if semantics is not None:
            found["semantics"] = {"chosen": semantics.summary()}
        return {**found, "notes": notes, **_facts(network)}
    readings = {name: _reading(graph, preset) for name, preset in PRESETS.items()}
    found["semantics"] = {
        name: {
            **PRESETS[name].summary(),
            "cannot read": found_so if isinstance(found_so, str) else "",
        }
        for name, found_so in readings.items()
    }
    for name, found_so in readings.items():
        if not isinstance(found_so, str):
            network, notes = found_so
            return {**found, "read_as": name, "notes": notes, **_facts(network)}
    reasons = {readings[name] for name, preset in PRESETS.items() if not preset.reason()}
    (problem,) = reasons if len(reasons) == 1 else ("no semantics reads it",)
    return {**found, "notes": list(graph.notes), "problem": problem}


def _net(path: Path, reading: Reading) -> dict[str, Any]:
    """A `.net` file; how many steps it runs is not shown, so that none need be named."""
    found = replace(reading, steps=reading.steps or 1).read_net(path)
    return {
        "file": str(path),
        "contract": False,
        "read_as": reading.semantics or "lava",
        "notes": list(found.remarks),
        "semantics": net_semantics(found.network),
        **_facts(found.network),
    }


def _reading(graph: RawGraph, semantics: Semantics) -> tuple[Network, list[str]] | str:
    """The network under one semantics and what was noted, or why there is none."""
    notes: list[str] = []
    try:
        if reason := semantics.reason():
            return reason
        network = interpret(graph, semantics, notes.append)
        check(network)
    except RequestError as error:
        return error.message
    return network, notes


def _facts(network: Network) -> dict[str, Any]:
    taken: dict[str, dict[str, str]] = {kind: {} for kind in TAKERS}
    for kind, members in taken.items():
        for name in plugins.summaries(kind):
            try:
                plugins.load(kind, name).check(network)
            except RequestError as error:
                members[name] = error.message
            else:
                members[name] = ""
    return {
        "network_sha256": network_sha256(network),
        "arithmetic": network.contract.arithmetic.kind,
        "input": {"name": network.input, "shape": list(network.input_shape)},
        "output": network.output,
        "layers": [_layer(network, layer) for layer in network.layers],
        "neurons": sum(layer.size for layer in network.layers),
        **taken,
    }


def _layer(network: Network, layer: Layer) -> dict[str, Any]:
    return {
        "layer": layer.name,
        "neuron": type(layer.neuron).__name__,
        "shape": list(layer.shape),
        "fed": [
            {
                "from": synapse.source,
                "late": network.late(layer, synapse),
                "operations": [_operation(op) for op in synapse.operations],
            }
            for synapse in layer.synapses
        ],
    }


def _operation(operation: Operation) -> str:
    """Name and size of an operation, for a person."""
    kind = type(operation).__name__
    match operation:
        case Dense(weight=weight):
            size = f"{weight.shape[1]} to {weight.shape[0]}"
        case Conv(weight=weight) | Conv1d(weight=weight):
            kernel = "x".join(map(str, weight.shape[2:]))
            size = f"{weight.shape[1] * operation.groups} to {weight.shape[0]}, {kernel}"
            steps = operation.stride if isinstance(operation.stride, tuple) else (operation.stride,)
            size += f", stride {'x'.join(map(str, steps))}" if max(steps) > 1 else ""
        case SumPool() | AvgPool():
            size = "x".join(map(str, operation.kernel))
        case Delay(steps=steps):
            size = f"{steps} steps"
        case _:
            return f"{operation.name} ({kind})"
    return f"{operation.name} ({kind} {size})"


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for a terminal."""
    if "problem" in found:
        yield f"{found['file']}: {found['problem']}"
    else:
        shape = "x".join(map(str, found["input"]["shape"]))
        under = f" under {found['read_as']}" if "read_as" in found else ""
        yield (
            f"{found['file']}: {_count(len(found['layers']), 'layer')}, "
            f"{_count(found['neurons'], 'neuron')}, network {found['network_sha256'][:12]}{under}"
        )
        yield f"  {found['input']['name']:<16} input {shape}"
        for layer in found["layers"]:
            yield from _layer_lines(layer, layer["layer"] == found["output"])
    for note in found["notes"]:
        yield f"note: {note}"
    if "semantics" in found:
        yield "open in the file, and how each semantics settles it:"
        yield from semantics_lines(found["semantics"])
    else:
        yield f"contract: in the file ({found['arithmetic']} arithmetic)"
    width = max((len(name) for kind in TAKERS for name in found.get(kind, {})), default=0)
    for kind in TAKERS:
        for name, reason in found.get(kind, {}).items():
            yield f"{kind[:-1]:<7} {name:<{width}} {'no: ' + reason if reason else 'yes'}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _layer_lines(layer: Mapping[str, Any], last: bool) -> Iterator[str]:
    shape = "x".join(map(str, layer["shape"]))
    yield f"  {layer['layer']:<16} {layer['neuron']} {shape}{', output' if last else ''}"
    for synapse in layer["fed"]:
        late = ", one step late" if synapse["late"] else ""
        yield f"    from {synapse['from']}{late}: {', '.join(synapse['operations']) or 'as it is'}"


def semantics_lines(readings: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The table of what is open, a line a semantics."""
    columns = ["dt", "decay", "input gain", "fires at", "reset", "spikes per step"]
    rows = [["semantics", *columns]]
    rows += [[name, *(reading[column] for column in columns)] for name, reading in readings.items()]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    reasons = ["", *(reading["cannot read"] for reading in readings.values())]
    for row, reason in zip(rows, reasons, strict=True):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()
        if reason:
            yield f"    cannot read it here: {reason}"
