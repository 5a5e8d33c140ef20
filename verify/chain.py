"""The chain of custody: trained, folded, snapped, integer, each runtime, arrow by arrow.

Every network and every runtime sees the same batches in lockstep, so memory stays bounded and a
difference is found in the batch where it arises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deploy.protocol import Session
from ..errors import SnnpipeError
from ..network.contract import Grid, Integer
from ..network.grid import LayerCertificate, certificate, exact_sums
from ..network.layers import Network
from ..network.simulate import simulate
from ..network.trace import Record, Trace, Witness, join, predictions
from .arrow_verdicts import (
    equal_verdict,
    folded_verdict,
    replayed_verdict,
    snapped_verdict,
    told,
)
from .compare import Differences, check_trace, compare, count
from .proof import prove
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

    x: stored inputs (B, *stored_shape); labels: int64 (B,), None where nobody knows them;
    ``trained``: the trained module's own test accuracy, if known; ``untraced``: why a run cannot
    be held against its trained module; ``quantisation``: how the integers were made, plain values.
    """

    network: Network
    x: NDArray[Any]
    labels: Labels | None
    runtimes: Mapping[str, Opened]
    folded: Network | None = None
    integer: Network | None = None
    witness: Witness | None = None
    trained: Accuracy | None = None
    untraced: str = ""
    quantisation: Mapping[str, Any] | None = None


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
    """Traces without spikes, batch by batch, differences to another run, and the replay of a run
    whose sums are not exact."""

    traces: list[Trace] = field(default_factory=list)
    differences: Differences = field(default_factory=Differences)
    replay: tuple[LayerReplay, ...] = ()
    error: SnnpipeError | None = None

    def keep(self, trace: Trace) -> None:
        self.traces.append(replace(trace, spikes={}, currents={}))

    def predicted(self) -> Labels:
        """Class after the last step, (B,)."""
        return np.concatenate([predictions(trace.outputs)[-1] for trace in self.traces])

    def judge(
        self, network: Network, exact: bool, frames: NDArray[np.float32], truth: Trace, found: Trace
    ) -> None:
        """Hold a runtime's batch against the reference; without exact sums replay it too."""
        check_trace(truth, found)
        if exact:
            compare(network, frames, truth, found, self.differences)
            return
        judged = prove(network, frames, found, self.differences.samples)
        count(network, _apart(truth), found, self.differences)
        self.replay = tuple(map(add, self.replay, judged)) if self.replay else judged


def verify(request: Request, progress: Callable[[int], None] | None = None) -> Findings:
    """Walk the chain; ``progress`` is told the number of samples done.

    Raises nothing of a runtime's: what could not run stands in its arrow.
    """
    layers = certificate(request.network)
    exact = exact_sums(request.network)
    tallies = _run(request, exact, progress or (lambda _: None))
    arrows = [*_training(request, tallies, layers)]
    if request.integer is not None:
        arrows.append(_quantised(request, tallies))
    for name, opened in request.runtimes.items():
        arrows.append(_runtime(request, name, exact or opened.quantised, tallies))
    networks = {"float": request.network}
    if request.integer is not None:
        networks["integer"] = request.integer
    traces = {name: join(tallies[name].traces) for name in networks}
    return Findings(request, tuple(arrows), layers, traces, networks)


def _run(request: Request, exact: bool, progress: Callable[[int], None]) -> dict[str, _Tally]:
    names = ["folded", "float", "integer", *(f"on {name}" for name in request.runtimes)]
    tallies = {name: _Tally() for name in names}
    for name, opened in request.runtimes.items():
        if isinstance(opened.session, SnnpipeError):
            tallies[f"on {name}"].error = opened.session
    for start in range(0, len(request.x), BATCH):
        # What leaves float32 is refused by the replay, which names the layer.
        with np.errstate(over="ignore", invalid="ignore"):
            _batch(request, tallies, exact, start)
        progress(min(start + BATCH, len(request.x)))
    return tallies


def _batch(request: Request, tallies: Mapping[str, _Tally], exact: bool, start: int) -> None:
    """The samples from ``start`` on, on every network and runtime."""
    steps = request.network.contract.steps
    frames = request.network.frames(request.x[start : start + BATCH])
    record = Record(currents=PROBE if start == 0 else 0)
    truth = simulate(request.network, frames, steps, record)
    tallies["float"].keep(truth)
    references = {False: (request.network, frames, truth)}
    if request.folded is not None:
        folded = simulate(request.folded, frames, steps)
        tallies["folded"].keep(folded)
        count(request.folded, folded, _apart(truth), tallies["float"].differences)
    if request.integer is not None:
        levels = frames * np.float32(_worth(request.integer) / _worth(request.network))
        whole = simulate(request.integer, levels, steps, record)
        tallies["integer"].keep(whole)
        count(request.network, _apart(truth), _apart(whole), tallies["integer"].differences)
        references[True] = (request.integer, levels, whole)
    for name, opened in request.runtimes.items():
        tally = tallies[f"on {name}"]
        if tally.error is None and not isinstance(opened.session, SnnpipeError):
            network, shown, reference = references[opened.quantised]
            try:
                found = opened.session.run(shown, steps, record)
                tally.judge(network, exact or opened.quantised, shown, reference, found)
            except SnnpipeError as error:
                tally.error = error
                continue
            tally.keep(found)


def _worth(network: Network) -> float:
    """What one level of an input is worth in a network; where bytes enter as they are, 1."""
    return network.contract.input_scale


def _apart(trace: Trace) -> Trace:
    """A trace for comparing networks that differ by design: currents in other units left out."""
    return replace(trace, currents={})


def network_name(request: Request) -> str:
    """What the chain calls the network that the runtimes run."""
    snapped = request.folded is not None and isinstance(request.network.contract.arithmetic, Grid)
    return "snapped" if snapped else "network"


def _pair(
    request: Request, first: _Tally, second: _Tally
) -> tuple[Accuracy, Paired] | tuple[None, None]:
    """Accuracy of the second, and both on the same samples; None without labels."""
    if request.labels is None:
        return None, None
    a, b = first.predicted(), second.predicted()
    return accuracy(b, request.labels), paired(a, b, request.labels)


def _training(
    request: Request, tallies: Mapping[str, _Tally], layers: tuple[LayerCertificate, ...]
) -> list[Arrow]:
    """Trained -> folded and folded -> network, as far as the run holds them."""
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
                folded_verdict(request.folded, judged, len(request.witness.labels)),
                _pair(request, tallies["folded"], tallies["folded"])[0],
                replay=judged,
            )
        )
    if request.folded is not None:
        tally = tallies["float"]
        measured, pair = _pair(request, tallies["folded"], tally)
        verdict = snapped_verdict(request.folded, request.network, layers, tally.differences)
        arrows.append(
            Arrow(
                "folded",
                network_name(request),
                Strength.NOT_CLAIMED,
                verdict,
                measured,
                pair,
                tally.differences,
            )
        )
    return arrows


def _bits(request: Request) -> str:
    arithmetic = request.integer.contract.arithmetic if request.integer else None
    return f"{arithmetic.weight_bits}-bit" if isinstance(arithmetic, Integer) else "the"


def _quantised(request: Request, tallies: Mapping[str, _Tally]) -> Arrow:
    tally = tallies["integer"]
    measured, pair = _pair(request, tallies["float"], tally)
    sentence = f"{_bits(request)} integers change the network by design: "
    if pair is not None:
        sentence += f"accuracy {100 * pair.difference:+.2f} ± {100 * pair.half_width:.2f} points; "
    sentence += told(tally.differences)
    verdict = Verdict(Outcome.PASSED, sentence)
    return Arrow(
        network_name(request),
        "integer",
        Strength.NOT_CLAIMED,
        verdict,
        measured,
        pair,
        tally.differences,
    )


def _runtime(request: Request, name: str, exact: bool, tallies: Mapping[str, _Tally]) -> Arrow:
    opened = request.runtimes[name]
    source = "integer" if opened.quantised else network_name(request)
    network = request.integer if opened.quantised and request.integer else request.network
    strength = Strength.PROVEN if exact else Strength.REPLAYED
    tally = tallies[f"on {name}"]
    if tally.error is not None:
        verdict = Verdict(Outcome.COULD_NOT_RUN, tally.error.message)
        return Arrow(source, name, strength, verdict)
    measured, pair = _pair(request, tallies["integer" if opened.quantised else "float"], tally)
    judged = (
        replayed_verdict(network, tally.replay, tally.differences)
        if tally.replay
        else equal_verdict(network, tally.differences)
    )
    note = f"; {opened.note}" if opened.note else ""
    if not sum(tally.differences.spikes.values()):
        note += "; no neuron fired, so this says nothing of firing"
    verdict = Verdict(judged.outcome, judged.sentence + note)
    return Arrow(source, name, strength, verdict, measured, pair, tally.differences, tally.replay)
