"""What a run costs on a chip: exact counts times published prices, a pure function.

Counts are summed first and priced once, in fractions of whole numbers, so that every digit that is
printed follows from the chip file. Bounds are those of the prices: each constant is one unknown,
the same for all layers. A missing price is never zero; the sum is then "at least". Static power
and the host stand apart from the chip's dynamic energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ..errors import RequestError, nearest
from ..network.contract import Integer
from ..network.fanout import SynapseCount, dense_macs, synapse_counts
from ..network.layers import Network
from ..network.loops import components
from ..network.trace import Trace
from .chip import NUMBER_FORMATS, Chip, Price
from .counts import FirstLayer, HostCounts, RunCounts, Zeros, first_layer_of, run_counts
from .mapping import Mapping as CoreMapping
from .mapping import one_layer_per_core
from .pricing import Line, add, grade, priced, unpriced
from .report import Ann, EnergyReport, HostTerm, Total
from .timing import depths, static_terms, step_time

Prices = dict[str, Price]
_GRADED_MACS = "multiply-accumulates on graded values"


def _davies(counts: RunCounts, prices: Prices) -> list[Line]:
    """Synaptic operations, updates and messages; graded values have no price here."""
    layers = counts.layers
    updates = sum(layer.updates for layer in layers)
    active = [layer.active for layer in layers if layer.active is not None]
    act, inact = prices.get("update_act_pj"), prices.get("update_inact_pj")
    lines = [
        Line(
            "synops",
            "synaptic operations",
            sum(layer.ac for layer in layers),
            priced(prices.get("synop_pj")),
        )
    ]
    if len(active) == len(layers):
        idle = updates - sum(active)
        lines += [
            Line("updates_active", "updates with a current or spike", sum(active), priced(act)),
            Line("updates_inactive", "updates without either", idle, priced(inact)),
        ]
    else:
        what = "updates; it is not known how many were active"
        lines.append(Line("updates", what, updates, priced(inact, act)))
    messages = sum(layer.messages for layer in layers)
    graded = sum(layer.graded_messages for layer in layers)
    return [
        *lines,
        Line(
            "messages",
            "spikes sent to a core, within a tile",
            messages,
            priced(prices.get("spike_tile_pj")),
        ),
        Line("macs", _GRADED_MACS, sum(layer.mac for layer in layers), ()),
        Line("graded_messages", "graded values sent to a core", graded, ()),
    ]


def _ac_mac(counts: RunCounts, prices: Prices) -> list[Line]:
    """Arithmetic alone: an addition per spike and synapse, a MAC per graded value and weight."""
    acs, macs = (sum(getattr(layer, k) for layer in counts.layers) for k in ("ac", "mac"))
    return [
        Line("acs", "accumulates, one per spike and synapse", acs, priced(prices.get("ac_pj"))),
        Line("macs", _GRADED_MACS, macs, priced(prices.get("mac_pj"))),
    ]


def _all_in(counts: RunCounts, prices: Prices) -> list[Line]:
    """One price that holds everything."""
    acs, macs = (sum(getattr(layer, k) for layer in counts.layers) for k in ("ac", "mac"))
    what = "synaptic operations, everything included"
    return [
        Line("synops", what, acs, priced(prices.get("synop_pj"))),
        Line("macs", _GRADED_MACS, macs, ()),
    ]


def _activity_range(lines: Sequence[Line], prices: Prices) -> tuple[float, float] | None:
    """At the prices' own values: every update inactive, every update active."""
    readings = priced(prices.get("update_inact_pj"), prices.get("update_act_pj"))
    rest = add([line for line in lines if not line.name.startswith("updates")]).value
    updates = sum(line.count for line in lines if line.name.startswith("updates"))
    if not readings or rest is None:
        return None
    low, high = sorted(rest + updates * Fraction(price.value) for price in readings)
    return float(low), float(high)


def _host(counts: HostCounts, border: bool) -> tuple[HostTerm, ...]:
    terms = [
        HostTerm("host_macs", "multiply-accumulates of the first layer on the host", counts.mac),
        HostTerm("host_values_in", "currents the host writes to the chip", counts.values_in),
    ]
    if border:
        terms += [
            HostTerm("host_spikes_in", "input spikes the host sends", counts.spikes_in),
            HostTerm("host_spikes_out", "spikes the host receives", counts.spikes_out),
            HostTerm("host_values_out", "values the host reads", counts.values_out),
        ]
    return tuple(term for term in terms if term.count)


def _number_format(network: Network, chip: Chip, asked: str | None) -> str:
    if chip.model != "ac_mac" or chip.scope == "all_in":
        if asked is not None:
            raise RequestError(
                "E_FORMAT", f"chip '{chip.name}' has prices for one number format; found '{asked}'"
            )
        return ""
    integer = isinstance(network.contract.arithmetic, Integer)
    form = asked or ("int8" if integer else "fp32")
    if form not in NUMBER_FORMATS:
        raise RequestError(
            "E_FORMAT",
            f"number format '{form}' is unknown; expected {', '.join(NUMBER_FORMATS)}"
            f"{nearest(form, NUMBER_FORMATS)}",
        )
    return form


def _ann(network: Network, chip: Chip, prices: Prices, steps: int, samples: int, snn: Total) -> Ann:
    macs = sum(dense_macs(network).values())
    bits = steps.bit_length()  # ceil(log2(steps + 1))
    price = prices.get("mac_pj")
    if price is None:
        reason = f"chip '{chip.name}' has no price for a multiply-accumulate"
        return Ann(macs, bits, None, reason, None)
    line = Line("macs", "multiply-accumulates", macs * samples, (price,))
    total = line.cost().total(samples, grade([line]), "")
    own, other = snn.all_samples.value, total.all_samples.value
    ratio = own / other if own is not None and other and not snn.label else None
    return Ann(macs, bits, total, "", ratio)


def _lines(chip: Chip, counts: RunCounts, prices: Prices) -> list[Line]:
    if chip.scope == "all_in":
        return _all_in(counts, prices)
    return _ac_mac(counts, prices) if chip.model == "ac_mac" else _davies(counts, prices)


def _mapping(
    network: Network, chip: Chip, synapses: Sequence[SynapseCount], first_layer: FirstLayer
) -> CoreMapping:
    """One layer per core; bare arithmetic has no cores."""
    if chip.model == "ac_mac":
        return CoreMapping((), (), (), 0, 1)
    return one_layer_per_core(network, chip, synapses, first_layer == "host")


def _assumptions(
    network: Network, mapping: CoreMapping, zeros: Zeros, uneven: bool
) -> tuple[str, ...]:
    lines = [
        "stored zeros cost like any other value"
        if zeros == "count"
        else "zero weights and zero graded values cost nothing",
        "the ANN of the same shape has an accuracy of its own, which is not known here",
    ]
    if mapping.cores:
        lines += [
            "one layer on each core, all cores in one tile: no hops",
            "convolutions are unrolled into single synapses",
            "an isolated sample takes one more step for each layer of synapses; updates in those "
            "steps are not counted",
        ]
        if not isinstance(network.contract.arithmetic, Integer):
            lines.append(f"weights are stored in {mapping.weight_bits} bits")
        if mapping.chips > 1:
            lines.append(
                f"{mapping.chips} chips; messages between them are priced as within a tile"
            )
        if any(len(group) > 1 for group in components(network)):
            lines.append("a loop of several layers takes one step, as in the network")
        if uneven:
            lines.append("paths differ in length; the relay neurons they need are not counted")
    return tuple(lines)


def _notes(chip: Chip, counts: RunCounts) -> tuple[str, ...]:
    notes = list(chip.notes)
    if any(layer.active is None for layer in counts.layers) and "update_act_pj" in chip.energy.get(
        "", {}
    ):
        notes.append(
            "the run did not record which updates were active: the bounds go from all inactive "
            "to all active"
        )
    if "static_chip_mw" not in chip.power and chip.scope == "per_term":
        notes.append("static power: no price in the chip file")
    return tuple(notes)


def energy(
    network: Network,
    trace: Trace,
    chip: Chip,
    *,
    first_layer: str | None = None,
    zeros: Zeros = "count",
    number_format: str | None = None,
    samples: int | None = None,
    throttled_us: int = 1000,
) -> EnergyReport:
    """Price a run on a chip.

    ``trace``: its counts are totals over ``samples`` (default: the trace's own number).
    ``first_layer``: where a graded input meets its weights, ``host``, ``once`` or ``per_step``;
    by default the host for a chip of spikes, and for bare arithmetic once when the input is the
    same at every step. ``zeros``: ``skip`` leaves zero weights and zero inputs out.
    ``number_format``: of the prices, fp32, fp16 or int8, where the chip file has them; by default
    int8 for an integer network, else fp32. ``throttled_us``: the slow step that static power is
    also given for. Raises RequestError (E_FIRST_LAYER, E_FORMAT, E_REQUEST, E_TRACE).
    """
    samples = trace.samples if samples is None else samples
    _check(zeros, samples, throttled_us)
    form = _number_format(network, chip, number_format)
    default: FirstLayer = "once" if chip.model == "ac_mac" else "host"
    where = first_layer_of(network, trace, first_layer, default)
    synapses = synapse_counts(network, trace.fired, samples)
    counts = run_counts(network, trace, synapses, samples, where, zeros)
    prices = dict(chip.energy.get(form, {}))
    lines = _lines(chip, counts, prices)
    mapping = _mapping(network, chip, synapses, where)
    depth, uneven = depths(network, where)
    host = _host(counts.host, border=bool(mapping.cores))
    missing = (*unpriced(lines), *(term.name for term in host))
    label = "unmapped, at least" if mapping.unmapped else ""
    cost = add(lines)
    partial = missing or cost.value is None or (uneven and mapping.cores)
    dynamic = cost.total(samples, grade(lines), label or ("at least" if partial else ""))
    unmapped = {excess.layer for excess in mapping.unmapped}
    time = step_time(chip, network, counts.load, samples, unmapped)
    modes = {"stream": trace.steps, "isolated": trace.steps + depth}
    return EnergyReport(
        chip=chip.name,
        title=chip.title,
        model=chip.model,
        number_format=form,
        first_layer=where,
        zeros=zeros,
        samples=samples,
        steps=trace.steps,
        layers=counts.layers,
        terms=tuple(line.term(chip) for line in lines if line.count),
        dynamic=dynamic,
        activity_range=_activity_range(lines, prices),
        static=tuple(static_terms(chip, time, throttled_us, modes, samples, mapping.chips, label)),
        host=host,
        ann=_ann(network, chip, prices, trace.steps, samples, dynamic),
        cores=mapping.cores,
        unmapped=mapping.unmapped,
        unchecked=mapping.unchecked,
        unpriced=missing,
        assumptions=_assumptions(network, mapping, zeros, uneven),
        notes=_notes(chip, counts),
    )


def _check(zeros: str, samples: int, throttled_us: int) -> None:
    if zeros not in ("count", "skip"):
        raise RequestError("E_REQUEST", f"zeros is '{zeros}'; expected count or skip")
    if samples < 1 or throttled_us < 1:
        raise RequestError(
            "E_REQUEST",
            f"samples is {samples} and throttled_us is {throttled_us}; 1 or more is expected",
        )
