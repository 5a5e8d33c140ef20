"""The chain of custody: trained, folded, snapped, integer, each runtime, arrow by arrow.

Every network and every runtime sees the same batches in lockstep, so memory stays bounded and a
difference is found in the batch where it arises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deploy.protocol import Session
from ..errors import SnnpipeError
from ..network.contract import Grid, Integer
from ..network.graph import same_network
from ..network.grid import LayerCertificate, certificate, exact_sums, snap
from ..network.layers import Network
from ..network.simulate import simulate
from ..network.trace import Record, Trace, Witness, join, predictions
from .compare import Differences, compare, count
from .replay import LayerReplay, replay
from .statistics import Accuracy, Paired, accuracy, paired
from .verdict import Outcome, Strength, Verdict, worst

PROBE = 8
"""Samples whose currents are compared: a fault can hide between grid and threshold."""
BATCH = 250

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Opened:
    """A runtime ready to run, or why it is not; ``quantised``: it runs the request's integer
    network, not the network itself; ``note`` is repeated in its verdict."""

    session: Session | SnnpipeError
    quantised: bool = False
    note: str = ""


@dataclass(frozen=True)
class Request:
    """What to verify: the truth, what came before it, what runs it, and on which samples.

    x: stored inputs (B, *input_shape); labels: int64 (B,); ``trained``: the trained module's own
    test accuracy, if known; ``untraced``: why a run cannot be held against its trained module.
    """

    network: Network
    x: NDArray[Any]
    labels: Labels
    runtimes: Mapping[str, Opened]
    folded: Network | None = None
    integer: Network | None = None
    witness: Witness | None = None
    trained: Accuracy | None = None
    untraced: str = ""


@dataclass(frozen=True)
class Arrow:
    """One step of the chain: from what, to what, how it was checked, and what came out."""

    source: str
    target: str
    strength: Strength
    verdict: Verdict
    accuracy: Accuracy | None = None
    paired: Paired | None = None
    differences: Differences | None = None
    replay: tuple[LayerReplay, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All arrows, the certificate, and the traces that price the run: ``float`` and ``integer``
    (without spikes), by the network they belong to."""

    request: Request
    arrows: tuple[Arrow, ...]
    certificate: tuple[LayerCertificate, ...]
    traces: Mapping[str, Trace]
    networks: Mapping[str, Network]

    @property
    def outcome(self) -> Outcome:
        """The worst of the arrows."""
        return worst(arrow.verdict for arrow in self.arrows)


@dataclass
class _Tally:
    """Traces without spikes, batch by batch, and differences to another run."""

    traces: list[Trace] = field(default_factory=list)
    differences: Differences = field(default_factory=Differences)
    error: SnnpipeError | None = None

    def keep(self, trace: Trace) -> None:
        self.traces.append(replace(trace, spikes={}, currents={}))

    def predicted(self) -> Labels:
        """Class after the last step, (B,)."""
        return np.concatenate([predictions(trace.outputs)[-1] for trace in self.traces])


def verify(request: Request, progress: Callable[[int], None] | None = None) -> Findings:
    """Walk the chain; ``progress`` is told the number of samples done.

    Raises nothing of a runtime's: what could not run stands in its arrow.
    """
    layers = certificate(request.network)
    tallies = _run(request, progress or (lambda _: None))
    arrows = [*_training(request, tallies, layers)]
    if request.integer is not None:
        arrows.append(_quantised(request, tallies))
    for name, opened in request.runtimes.items():
        arrows.append(_runtime(request, name, opened, tallies))
    networks = {"float": request.network}
    if request.integer is not None:
        networks["integer"] = request.integer
    traces = {name: join(tallies[name].traces) for name in networks}
    return Findings(request, tuple(arrows), layers, traces, networks)


def _run(request: Request, progress: Callable[[int], None]) -> dict[str, _Tally]:
    names = ["folded", "float", "integer", *(f"on {name}" for name in request.runtimes)]
    tallies = {name: _Tally() for name in names}
    for name, opened in request.runtimes.items():
        if isinstance(opened.session, SnnpipeError):
            tallies[f"on {name}"].error = opened.session
    steps = request.network.contract.steps
    for start in range(0, len(request.labels), BATCH):
        frames = request.network.contract.frames(request.x[start : start + BATCH])
        record = Record(currents=PROBE if start == 0 else 0)
        truth = simulate(request.network, frames, steps, record)
        tallies["float"].keep(truth)
        references = {False: (request.network, truth)}
        if request.folded is not None:
            folded = simulate(request.folded, frames, steps)
            tallies["folded"].keep(folded)
            count(request.folded, folded, _apart(truth), tallies["float"].differences)
        if request.integer is not None:
            whole = simulate(request.integer, frames, steps, record)
            tallies["integer"].keep(whole)
            count(request.network, _apart(truth), _apart(whole), tallies["integer"].differences)
            references[True] = (request.integer, whole)
        for name, opened in request.runtimes.items():
            tally = tallies[f"on {name}"]
            if tally.error is None and not isinstance(opened.session, SnnpipeError):
                network, reference = references[opened.quantised]
                try:
                    found = opened.session.run(frames, steps, record)
                except SnnpipeError as error:
                    tally.error = error
                    continue
                tally.keep(found)
                compare(network, frames, reference, found, tally.differences)
        progress(min(start + BATCH, len(request.labels)))
    return tallies


def _apart(trace: Trace) -> Trace:
    """A trace for comparing networks that differ by design: currents in other units left out."""
    return replace(trace, currents={})


def _name(request: Request) -> str:
    """What the chain calls the network that the runtimes run."""
    return "network" if request.folded is None else "snapped"


def _changed(differences: Differences) -> str:
    total, changed = sum(differences.decisions.values()), sum(differences.changed.values())
    share = 100 * changed / total if total else 0.0
    return f"{changed:,} of {total:,} spike decisions changed ({share:.3f} %)"


def _pair(request: Request, first: _Tally, second: _Tally) -> tuple[Accuracy, Paired]:
    a, b = first.predicted(), second.predicted()
    return accuracy(b, request.labels), paired(a, b, request.labels)


def _training(
    request: Request, tallies: Mapping[str, _Tally], layers: tuple[LayerCertificate, ...]
) -> list[Arrow]:
    """Trained -> folded and folded -> snapped, as far as the run holds them."""
    arrows: list[Arrow] = []
    if request.untraced:
        verdict = Verdict(Outcome.COULD_NOT_RUN, request.untraced)
        arrows.append(Arrow("trained", "folded", Strength.MEASURED, verdict))
    if request.folded is not None and request.witness is not None:
        judged = replay(request.folded, request.witness)
        arrows.append(
            Arrow(
                "trained",
                "folded",
                Strength.MEASURED,
                _witness_verdict(judged, len(request.witness.labels)),
                accuracy(tallies["folded"].predicted(), request.labels),
                replay=judged,
            )
        )
    if request.folded is not None:
        tally = tallies["float"]
        measured, pair = _pair(request, tallies["folded"], tally)
        verdict = _snapped_verdict(request, request.folded, layers, tally.differences)
        arrows.append(
            Arrow(
                "folded",
                "snapped",
                Strength.NOT_CLAIMED,
                verdict,
                measured,
                pair,
                tally.differences,
            )
        )
    return arrows


def _witness_verdict(judged: tuple[LayerReplay, ...], samples: int) -> Verdict:
    for layer in judged:
        if layer.wrong and layer.first is not None:
            return Verdict(
                Outcome.FAILED,
                f"layer '{layer.layer}': {layer.wrong:,} of {layer.judged:,} recorded values are "
                f"not the folded network's; first: {layer.first.sentence()}",
            )
    spiking = [layer for layer in judged if layer.first is None and layer.spikes]
    total, excused = (
        sum(layer.judged for layer in spiking),
        sum(layer.within_rounding for layer in spiking),
    )
    return Verdict(
        Outcome.PASSED,
        f"fed with the spikes the trained module recorded on {samples} images, the folded network "
        f"decides as it did: 0 wrong, {excused:,} within rounding, of {total:,} spike decisions",
    )


def _snapped_verdict(
    request: Request,
    folded: Network,
    layers: tuple[LayerCertificate, ...],
    differences: Differences,
) -> Verdict:
    """The network must be what snapping the folded one gives, and its certificate must hold."""
    broken = [layer for layer in layers if layer.problem]
    if broken:
        return Verdict(
            Outcome.FAILED,
            f"the certificate does not hold in layer '{broken[0].layer}': {broken[0].problem}",
        )
    arithmetic = request.network.contract.arithmetic
    expected = snap(folded) if isinstance(arithmetic, Grid) else folded
    if not same_network(expected, request.network):
        return Verdict(
            Outcome.FAILED,
            f"the network is not the folded one rounded to the grid, in weights or in contract; "
            f"{_changed(differences)}",
        )
    if not layers:
        return Verdict(Outcome.PASSED, f"not snapped to a grid; {_changed(differences)}")
    return Verdict(
        Outcome.PASSED,
        f"weights rounded to the grid, certificate holds in every layer; {_changed(differences)}",
    )


def _bits(request: Request) -> str:
    arithmetic = request.integer.contract.arithmetic if request.integer else None
    return f"{arithmetic.weight_bits}-bit" if isinstance(arithmetic, Integer) else "the"


def _quantised(request: Request, tallies: Mapping[str, _Tally]) -> Arrow:
    tally = tallies["integer"]
    measured, pair = _pair(request, tallies["float"], tally)
    sentence = (
        f"{_bits(request)} integers change the network by design: accuracy "
        f"{100 * pair.difference:+.2f} "
        f"± {100 * pair.half_width:.2f} points; {_changed(tally.differences)}"
    )
    verdict = Verdict(Outcome.PASSED, sentence)
    return Arrow(
        _name(request), "integer", Strength.NOT_CLAIMED, verdict, measured, pair, tally.differences
    )


def _runtime(request: Request, name: str, opened: Opened, tallies: Mapping[str, _Tally]) -> Arrow:
    source = "integer" if opened.quantised else _name(request)
    network = request.integer if opened.quantised and request.integer else request.network
    exact = exact_sums(network)
    strength = Strength.PROVEN if exact else Strength.MEASURED
    tally = tallies[f"on {name}"]
    if tally.error is not None:
        verdict = Verdict(Outcome.COULD_NOT_RUN, tally.error.message)
        return Arrow(source, name, strength, verdict)
    measured, pair = _pair(request, tallies["integer" if opened.quantised else "float"], tally)
    verdict = _equality(network, tally.differences, exact, opened.note)
    return Arrow(source, name, strength, verdict, measured, pair, tally.differences)


def _equality(network: Network, differences: Differences, exact: bool, note: str) -> Verdict:
    decisions = sum(differences.decisions.values())
    values = sum(differences.currents_compared.values())
    note = f"; {note}" if note else ""
    if differences.none:
        proof = (
            "integers are the same bits or wrong"
            if network.contract.arithmetic.kind == "integer"
            else "by the certificate every order of summation gives these spikes"
            if exact
            else "without a certificate this holds for these samples only"
        )
        return Verdict(
            Outcome.PASSED,
            f"identical on the {differences.samples:,} samples: {decisions:,} spike decisions, "
            f"{differences.outputs_compared:,} outputs, {values:,} currents; {proof}{note}",
        )
    first = f"; first: {differences.first.sentence()}" if differences.first else ""
    spikes = sum(differences.changed.values())
    currents = sum(differences.currents_changed.values())
    what = (
        f"{spikes:,} spikes, {differences.outputs_changed:,} outputs and {currents:,} currents "
        f"differ{first}{note}"
    )
    if exact:
        return Verdict(Outcome.FAILED, what)
    return Verdict(
        Outcome.COULD_NOT_RUN,
        f"{what}; there is no certificate, so comparing cannot tell rounding from a fault",
    )
