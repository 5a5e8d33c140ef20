"""What is said of an arrow of the chain, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable

from ..network.contract import Grid
from ..network.graph import same_network
from ..network.grid import LayerCertificate, snap
from ..network.layers import Network
from ..network.neurons import Spiking
from .compare import Differences
from .replay import LayerReplay
from .verdict import Outcome, Verdict


def told(differences: Differences) -> str:
    """How many spike decisions changed, in words."""
    total, changed = sum(differences.decisions.values()), sum(differences.changed.values())
    share = 100 * changed / total if total else 0.0
    return f"{changed:,} of {total:,} spike decisions changed ({share:.3f} %)"


def folded_verdict(network: Network, judged: tuple[LayerReplay, ...], samples: int) -> Verdict:
    """The folded network, by the replay of what the trained module recorded."""
    return _wrong(judged, "the folded network's") or Verdict(
        Outcome.PASSED,
        f"fed with the spikes the trained module recorded on {samples} samples, the folded network "
        f"decides as it did: {_decisions(network, judged)}",
    )


def snapped_verdict(
    folded: Network,
    network: Network,
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
    arithmetic = network.contract.arithmetic
    expected = snap(folded) if isinstance(arithmetic, Grid) else folded
    if not same_network(expected, network):
        rounded = " rounded to the grid" if layers else ""
        return Verdict(
            Outcome.FAILED,
            f"the network is not the folded one{rounded}, in weights or in contract; "
            f"{told(differences)}",
        )
    if not layers:
        return Verdict(
            Outcome.PASSED,
            f"the folded network as it is, not snapped to a grid; {told(differences)}",
        )
    return Verdict(
        Outcome.PASSED,
        f"weights rounded to the grid, certificate holds in every layer; {told(differences)}",
    )


def equal_verdict(network: Network, differences: Differences) -> Verdict:
    """A run whose every bit is decided."""
    decisions = sum(differences.decisions.values())
    values = sum(differences.currents_compared.values())
    if differences.none:
        proof = (
            "integers are the same bits or wrong"
            if network.contract.arithmetic.kind == "integer"
            else "by the certificate every order of summation gives these spikes"
        )
        return Verdict(
            Outcome.PASSED,
            f"identical on the {differences.samples:,} samples: {decisions:,} spike decisions, "
            f"{differences.outputs_compared:,} outputs, {values:,} currents; {proof}",
        )
    first = f"; first: {differences.first.sentence()}" if differences.first else ""
    spikes = sum(differences.changed.values())
    currents = sum(differences.currents_changed.values())
    return Verdict(
        Outcome.FAILED,
        f"{spikes:,} spikes, {differences.outputs_changed:,} outputs and {currents:,} currents "
        f"differ{first}",
    )


def _wrong(judged: Iterable[LayerReplay], of_what: str) -> Verdict | None:
    """The verdict on the first layer in which something is wrong."""
    for layer in judged:
        if layer.first is not None:
            return Verdict(
                Outcome.FAILED,
                f"layer '{layer.layer}': {layer.wrong:,} of {layer.judged:,} recorded values are "
                f"not {of_what}; first: {layer.first.sentence()}",
            )
    return None


def _decisions(network: Network, judged: Iterable[LayerReplay]) -> str:
    spiking = [x for x in judged if isinstance(network.layer(x.layer).neuron, Spiking)]
    total, within = sum(x.judged for x in spiking), sum(x.within_rounding for x in spiking)
    return f"0 wrong, {within:,} within rounding, of {total:,} spike decisions"


def replayed_verdict(
    network: Network, judged: tuple[LayerReplay, ...], differences: Differences
) -> Verdict:
    """A run of rounded sums, by its replay."""
    found = _wrong(judged, "what float32 can make of the network, in any order of summation")
    if found is not None:
        return found
    outputs, changed = differences.outputs_compared, sum(differences.changed.values())
    ties = sum(layer.ties for layer in judged)
    told = "told" if ties else "not told"
    return Verdict(
        Outcome.PASSED,
        f"{_decisions(network, judged)} on {differences.samples:,} samples; all "
        f"{outputs:,} outputs within their bound; {changed:,} spikes differ from the reference's; "
        f"> and >= are {told} apart (exact ties: {ties:,})",
    )
