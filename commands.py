"""What commands do with a run: open its runtimes, find its inputs, verify it, put it in words."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from . import __version__, calibration, plugins
from .deploy.protocol import Runtime, Session
from .errors import CouldNotRunError, RequestError, SnnpipeError
from .export.lava_script import changed_file
from .export.quantise import LayerScale, quantise
from .export.targets.lava import settings_of
from .files import read_manifest, write_file
from .inputs import Reading, TestSet
from .network.contract import Integer
from .network.graph import graph_sha256, same_network
from .network.grid import snap
from .network.layers import Network, Shape
from .network.neurons import Spiking
from .network.nir_file import read_network, write_network
from .network.trace import Trace, Witness, predictions
from .runs import Place
from .verify.chain import Opened, Request, network_name
from .verify.chain import verify as walk_chain
from .verify.recorded import hold
from .verify.recording import Recording
from .verify.report import report
from .verify.statistics import Accuracy

LIBRARIES = ("numpy", "torch", "onnx", "onnxruntime", "nir", "h5py")
INTEGER_TARGET = "lava"
TRAINING = ("precision", "teacher", "synops")
"""What a history says of its training beside accuracies, for the report."""


@dataclass(frozen=True)
class Whole:
    """An integer network, and how it was made of floats: settings and scales, where it was."""

    network: Network
    settings: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[LayerScale, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the report."""
        return {"settings": self.settings, "layers": [scale.to_dict() for scale in self.scales]}


def lift_run(where: Place, grid: bool = True) -> None:
    """Write a run's ``folded.nir`` and its ``network.nir``, snapped to the grid or as folded."""
    from .export.lift import Setting, lift
    from .train.checkpoint import load_run
    from .train.coding import seen

    model, recipe = load_run(where.folder)
    data = seen(recipe)
    setting = Setting(
        data.shape,
        recipe.train.steps,
        data.scale,
        data.levels,
        data.coding,
        f"snnpipe {__version__}",
    )
    folded = lift(model, setting)
    network = snap(folded) if grid else folded
    write_network(folded, where.folded)
    write_network(network, where.network)


def _artefact(where: Place, target: str, network: Network) -> Path | None:
    """A target's folder, checked as `_manifest` does; None where a bare file is what runs."""
    if target == "nir" and not (where.is_run and where.artefact(target).is_dir()):
        return None
    _manifest(where, target, network)
    return where.artefact(target)


def _manifest(where: Place, target: str, network: Network) -> dict[str, Any]:
    """What an artefact says of itself, its hashes checked and held against the network it was
    written from."""
    folder = where.artefact(target)
    if not folder.is_dir():
        raise CouldNotRunError(
            "E_ARTEFACT",
            f"{folder} is not there: snnpipe export {quote(str(where.argument))} --target {target}"
            + ("" if where.is_run else ", and the options it is read with"),
        )
    found = read_manifest(folder)
    same = {"graph_sha256": graph_sha256(network), "contract": network.contract.to_dict()}
    if any(found.get(key) != value for key, value in same.items()):
        raise _stale(where, folder)
    return found


def _stale(where: Place, folder: Path) -> RequestError:
    return RequestError(
        "E_STALE",
        f"{folder} was not exported from {where.network} as it is now and as it is read here; "
        "export it again",
    )


def _integer_network(where: Place, network: Network, data: Path | None) -> Whole:
    """The Loihi artefact of a run, made again from ``network`` and held against what lies there;
    the network itself when it is one.

    ``data``: the folder of the data set, from which calibration inputs come again.
    """
    if isinstance(network.contract.arithmetic, Integer):
        return Whole(network)
    found, folder = _manifest(where, INTEGER_TARGET, network), where.artefact(INTEGER_TARGET)
    integer = read_network(folder / "network.nir")
    try:
        settings, record = settings_of(found["options"]), found["calibration"]
    except (KeyError, TypeError, AttributeError, RequestError) as error:
        raise _stale(where, folder) from error
    inputs = None
    if settings.scaling == "flips" and record:
        inputs = calibration.again(where, data, record)
    again, scales = quantise(network, settings, inputs)
    if not same_network(integer, again):
        raise _stale(where, folder)
    if changed := changed_file(integer, folder):
        raise RequestError(
            "E_STALE",
            f"{folder / changed} is not what export makes of the integers beside it; export again",
        )
    return Whole(integer, {**settings.to_dict(), "calibration": record}, scales)


def open_runtime(
    where: Place, name: str, reading: Reading, data: Path | None
) -> tuple[Network, Session]:
    """A runtime opened on a run or a bare file, and the network that it runs; ``data`` as in
    `_integer_network`."""
    runtime: Runtime = plugins.load("runtimes", name)
    network = truth(where, reading)
    if runtime.target == INTEGER_TARGET:
        integer = _integer_network(where, network, data).network
        return integer, runtime.open(integer, None)
    return network, runtime.open(network, _artefact(where, runtime.target, network))


def truth(where: Place, reading: Reading) -> Network:
    """The network that a run or a file holds."""
    if not where.network.is_file():
        raise RequestError(
            "E_FILE", f"{where.network} is not there yet: snnpipe export {where.folder}"
        )
    return reading.read(where.network)


def is_integer(network: Network) -> bool:
    """Whether a network computes in Loihi's integers."""
    return isinstance(network.contract.arithmetic, Integer)


def save_trace(path: Path, trace: Trace) -> None:
    """Outputs and packed spikes as .npz, whole or not at all; RequestError (E_OUT)."""
    if path.suffix != ".npz":
        raise RequestError("E_OUT", f"{path}: a name that ends in .npz is expected")
    spikes: dict[str, Any] = {f"spikes.{name}": bits for name, bits in trace.spikes.items()}

    def write(beside: Path) -> None:
        with beside.open("wb") as stream:
            np.savez_compressed(stream, outputs=trace.outputs, **spikes)

    write_file(path, write)


def summary(network: Network, trace: Trace, runtime: str, source: str) -> dict[str, Any]:
    """What a run did, as plain values."""
    layers = [
        {
            "layer": layer.name,
            "neurons": layer.size,
            "spikes": int(trace.fired[layer.name].sum()),
            "rate": float(trace.fired[layer.name].sum())
            / (trace.steps * trace.samples * layer.size),
        }
        for layer in network.layers
        if isinstance(layer.neuron, Spiking)
    ]
    return {
        "runtime": runtime,
        "input": source,
        "samples": trace.samples,
        "steps": trace.steps,
        "layers": layers,
        "predictions": predictions(trace.outputs)[-1].tolist(),
        **_overflows(trace),
    }


def _overflows(trace: Trace) -> dict[str, str]:
    """What wrapped or saturated in a run of integers, in words; nothing where nobody counts."""
    if trace.overflows is None:
        return {}
    found = ", ".join(f"{name} {count:,}" for name, count in trace.overflows.items() if count)
    return {"overflows": found or "none"}


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The summary of a run for a terminal."""
    yield (
        f"{document['runtime']}: {document['samples']} samples, T = {document['steps']}, from "
        f"{document['input']}"
    )
    for layer in document["layers"]:
        yield f"  {layer['layer']:<16} {layer['spikes']:>12,} spikes  rate {layer['rate']:.3f}"
    if "overflows" in document:
        yield f"  overflows: {document['overflows']}"
    shown = " ".join(map(str, document["predictions"][:20]))
    yield f"  predictions: {shown}{' …' if len(document['predictions']) > 20 else ''}"


def _opened(
    where: Place, name: str, network: Network, integer: Whole | None, leave_out: Set[str]
) -> Opened:
    """Open one runtime; what is missing here is kept as its verdict, what is wrong is raised."""
    runtime: Runtime = plugins.load("runtimes", name)
    whole = runtime.target == INTEGER_TARGET
    quantised = whole and not isinstance(network.contract.arithmetic, Integer)
    note = "fixed-point emulation, no silicon" if whole else ""
    try:
        if whole:
            found = integer or _integer_network(where, network, None)
            opened = runtime.open(found.network, None)
            return Opened(opened, quantised, note)
        return Opened(runtime.open(network, _artefact(where, runtime.target, network)))
    except (CouldNotRunError, RequestError) as error:
        if isinstance(error, RequestError) and error.code not in leave_out:
            raise
        return Opened(error, quantised, note)


def _trained(where: Place) -> tuple[Accuracy | None, dict[str, Any]]:
    """The accuracy that training measured, and its own facts: precision, teacher, operations."""
    if not where.history.is_file():
        return None, {}
    try:
        history = json.loads(where.history.read_text(encoding="utf-8"))
        last = history["test"]["last"]
        found = Accuracy(int(last["correct"]), int(last["n"]))
        own = {name: history[name] for name in TRAINING if name in history}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RequestError("E_RUN", f"{where.history}: not a readable history") from error
    if not 0 <= found.correct <= found.n:
        raise RequestError(
            "E_RUN", f"{where.history}: {found.correct} correct of {found.n} is impossible"
        )
    return found, own


def _untraced(where: Place) -> str:
    """Why a trained run cannot be held against its module; empty when it can, or was not one."""
    if not where.history.is_file():
        return ""
    missing = [path.name for path in (where.folded, where.witness) if not path.is_file()]
    if not missing:
        return ""
    return f"{' and '.join(missing)} not found in {where.folder}: what was trained is not known"


def _populations(network: Network) -> list[tuple[str, Shape, bool]]:
    return [(x.name, x.shape, isinstance(x.neuron, Spiking)) for x in network.layers]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def verify_run(
    where: Place,
    network: Network,
    names: list[str],
    labelled: TestSet,
    progress: Callable[[int], None] | None = None,
    leave_out: Set[str] = frozenset(),
    read_with: str = "",
    recording: Recording | None = None,
    notes: Mapping[str, Any] | None = None,
    data_folder: Path | None = None,
) -> dict[str, Any]:
    """Walk the chain of a run, or of a bare file, and return the report.

    ``progress`` is told the number of samples done; a runtime that does not open for a reason
    whose code is in ``leave_out`` is named in the facts and not part of the verdict. ``read_with``:
    the options with which a file without a contract was read, for the facts; more of
    them are ``notes``. ``recording``: of the network, made elsewhere; it becomes the last arrow.
    ``data_folder``: where calibration inputs of the integers are found again.
    """
    classes = network.layer(network.output).size
    labels = labelled.labels
    if labels is not None and (labels.min() < 0 or labels.max() >= classes):
        raise RequestError(
            "E_INPUT",
            f"the labels go from {labels.min()} to {labels.max()}; this network knows 0 to "
            f"{classes - 1}",
        )
    quantised = where.artefact(INTEGER_TARGET).is_dir() and not isinstance(
        network.contract.arithmetic, Integer
    )
    integer = _integer_network(where, network, data_folder) if quantised else None
    in_run = where.is_run
    folded = read_network(where.folded) if in_run and where.folded.is_file() else None
    if folded is not None and _populations(folded) != _populations(network):
        raise RequestError(
            "E_STALE", f"{where.folded} and {where.network} hold other layers; export the run again"
        )
    witness = Witness.load(where.witness) if in_run and where.witness.is_file() else None
    opened = {name: _opened(where, name, network, integer, leave_out) for name in names}
    left_out = {
        name: found.session
        for name, found in opened.items()
        if isinstance(found.session, SnnpipeError) and found.session.code in leave_out
    }
    trained, training = _trained(where) if in_run else (None, {})
    request = Request(
        network,
        labelled.x,
        labels,
        {name: found for name, found in opened.items() if name not in left_out},
        folded,
        None if integer is None else integer.network,
        witness,
        trained,
        _untraced(where) if in_run else "",
        None if integer is None else integer.to_dict(),
    )
    findings = walk_chain(request, progress)
    if recording is not None:
        arrow = hold(network, labelled.x, recording, network_name(request))
        findings = replace(findings, arrows=(*findings.arrows, arrow))
    facts = {
        "data": labelled.source,
        "read with": read_with.strip() or "the file's own contract",
        "left_out": [f"{name}: {error.message}" for name, error in left_out.items()],
        **training,
        **(notes or {}),
        **_overflows(findings.traces.get("integer", findings.traces["float"])),
        "versions": _versions(),
    }
    return report(findings, where.name, facts)


def chain_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The chain of custody for a terminal, a line an arrow."""
    for arrow in document["chain"]:
        measured = arrow["accuracy"]
        share = f"{100 * measured['share']:6.2f} %" if measured else "        "
        yield (
            f"{arrow['from']:>8} > {arrow['to']:<13} {share}  {arrow['strength']:<19} "
            f"{arrow['verdict']:<13} {arrow['sentence']}"
        )
    for warning in (document["quantisation"] or {}).get("warnings", ()):
        yield f"warning: {warning}"
