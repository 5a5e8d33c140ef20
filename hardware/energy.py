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
from ..network.layers import Network
from ..network.loops import components
from ..network.trace import Trace
from .baselines import baselines, break_evens
from .chip import NUMBER_FORMATS, Chip, Price
from .counts import FirstLayer, HostCounts, RunCounts, Zeros, first_layer_of, run_counts
from .mapping import Mapping as CoreMapping
from .mapping import map_network
from .pricing import Line, add, grade, priced, unpriced
from .report import EnergyReport, HostTerm
from .terms import lines_of
from .timing import static_terms, step_time

Prices = dict[str, Price]


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


def _assumptions(
    network: Network, mapping: CoreMapping | None, chip: Chip, zeros: Zeros
) -> tuple[str, ...]:
    lines = [
        "stored zeros cost like any other value"
        if zeros == "count"
        else "zero weights and zero graded values cost nothing",
        "the ANN of the same shape has an accuracy of its own, which is not known here",
    ]
    if mapping is None:
        return tuple(lines)
    cores = "core" if len(mapping.cores) == 1 else "cores"
    lines.append(
        f"{len(mapping.cores):,} {cores} by our own partitioner, an estimate; none holds two layers"
        if chip.limits.cores != 1
        else "one core holds every layer"
    )
    lines.append(
        "spikes go along rows and columns of tiles"
        + (", on a grid that no source states" if chip.limits.grid and chip.limits.grid.assumed
           else "")
        if mapping.hops
        else "no hops: the chip's file has no grid of tiles"
    )  # fmt: skip
    lines.append(
        "a core stores a convolution's kernel once"
        if chip.limits.conv_sharing
        else "convolutions are unrolled into single synapses"
    )
    if chip.limits.pipelined:
        lines.append(
            "an isolated sample takes one more step for each layer of synapses; updates in those "
            "steps are not counted"
        )
    if not isinstance(network.contract.arithmetic, Integer):
        lines.append(f"weights are stored in {mapping.weight_bits} bits")
    if mapping.low.relays:
        count = sum(mapping.low.network.layer(name).size for name in mapping.low.relays)
        lines.append(
            f"paths differ in length: {count:,} relay neurons hold spikes back, and are counted"
        )
    if mapping.chips > 1:
        lines.append(
            f"{mapping.chips} chips in a row; hops of messages between them are not counted"
        )
    if any(len(group) > 1 for group in components(network)):
        lines.append("a loop of several layers takes one step, as in the network")
    if mapping.mixed:
        names = ", ".join(f"'{name}'" for name in mapping.mixed)
        lines.append(f"synapses of {names} mix axes: their messages are an upper bound")
    return tuple(lines)


def _notes(chip: Chip, counts: RunCounts) -> tuple[str, ...]:
    notes = list(chip.notes)
    unknown = any(layer.active is None for layer in counts.layers)
    if unknown and chip.model in ("davies", "soma"):
        notes.append(
            "the run did not record which updates were active: the bounds go from all inactive "
            "to all active"
        )
    if chip.scope == "per_term":
        if "static_chip_mw" not in chip.power:
            notes.append("static power: no price in the chip file")
        elif "step_us" not in chip.time:
            notes.append("length of a free step: no figure in the chip file")
    return tuple(notes)


def plan(network: Network, chip: Chip, first_layer: FirstLayer) -> CoreMapping | None:
    """The mapping that a run is priced by; None for bare arithmetic, which has no cores."""
    if chip.model in ("ac_mac", "memory"):
        return None
    return map_network(network, chip, first_layer == "host")


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
    mapping: CoreMapping | None = None,
) -> EnergyReport:
    """Price a run on a chip.

    ``trace``: its counts are totals over ``samples`` (default: the trace's own number).
    ``first_layer``: where a graded input meets its weights, ``host``, ``once`` or ``per_step``;
    by default the host for a chip of spikes, and for bare arithmetic once when the input is the
    same at every step. ``zeros``: ``skip`` leaves zero weights and zero inputs out.
    ``number_format``: of the prices, fp32, fp16 or int8, where the chip file has them; by default
    int8 for an integer network, else fp32. ``throttled_us``: the slow step that static power is
    also given for. ``mapping``: of a run of this network before, as `plan` makes it; it does not
    depend on what fired. Raises RequestError (E_FIRST_LAYER, E_FORMAT, E_NO_PRICE, E_REQUEST,
    E_TRACE).
    """
    samples = trace.samples if samples is None else samples
    _check(zeros, samples, throttled_us)
    if chip.model == "limits":
        raise RequestError(
            "E_NO_PRICE",
            f"chip '{chip.name}' can be mapped and not priced: no energy of an operation is "
            "published for it",
        )
    form = _number_format(network, chip, number_format)
    default: FirstLayer = "once" if chip.model in ("ac_mac", "memory") else "host"
    where = first_layer_of(network, trace, first_layer, default)
    mapping = plan(network, chip, where) if mapping is None else mapping
    counts = run_counts(network, trace, samples, where, zeros, mapping)
    prices = dict(chip.energy.get(form, {}))
    lines = lines_of(chip, network, counts, prices)
    host = _host(counts.host, border=mapping is not None)
    missing = (*dict.fromkeys(unpriced(lines)), *(term.name for term in host))
    cores, broken = (mapping.layers(), mapping.unmapped) if mapping else ((), ())
    label = "unmapped, at least" if broken else ""
    cost = add(lines)
    dynamic = cost.total(
        samples, grade(lines), label or ("at least" if missing or cost.value is None else "")
    )
    time = step_time(chip, mapping, counts.load, samples) if mapping else None
    modes = {"stream": trace.steps}
    if chip.limits.pipelined and mapping:
        modes["isolated"] = trace.steps + mapping.low.depth
    chips = mapping.chips if mapping else 1
    against = baselines(network, chip, form, trace.steps, samples, dynamic)
    emitted = {layer.layer: layer.spikes for layer in counts.layers}
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
        static=tuple(static_terms(chip, time, throttled_us, modes, samples, chips, label)),
        host=host,
        ann=against[0],
        baselines=against,
        break_even=break_evens(network, chip, prices, emitted, trace.steps, samples),
        cores=cores,
        chips=chips,
        unmapped=broken,
        unchecked=mapping.unchecked if mapping else (),
        unpriced=missing,
        assumptions=_assumptions(network, mapping, chip, zeros),
        notes=_notes(chip, counts),
    )


def ratio(one: EnergyReport, other: EnergyReport, force: bool = False) -> tuple[float, str]:
    """Dynamic energy of one report over another's, and what must be said with it.

    Joules of two chip files differ in process, in what is counted and in how it was found, so that
    their ratio says little: refused unless forced. Raises RequestError (E_RATIO).
    """
    own, its = one.dynamic.per_inference.value, other.dynamic.per_inference.value
    for report, value in ((one, own), (other, its)):
        if value is None or report.dynamic.label:
            raise RequestError(
                "E_RATIO",
                f"the energy on '{report.chip}' is {report.dynamic.label or 'not known'}: without "
                f"{', '.join(report.unpriced) or 'a mapping'} there is no total to divide",
            )
    same = (one.chip, one.number_format) == (other.chip, other.number_format)
    if not same and not force:
        raise RequestError(
            "E_RATIO",
            f"the energies are of different price lists, '{one.chip} {one.number_format}' "
            f"and '{other.chip} {other.number_format}': their ratio says little, and is made only "
            "when forced",
        )
    if own is None or not its:
        raise RequestError("E_RATIO", f"the energy on '{other.chip}' is 0: nothing to divide by")
    return own / its, "" if same else f"forced: {one.title}, over {other.title}"


def _check(zeros: str, samples: int, throttled_us: int) -> None:
    if zeros not in ("count", "skip"):
        raise RequestError("E_REQUEST", f"zeros is '{zeros}'; expected count or skip")
    if samples < 1 or throttled_us < 1:
        raise RequestError(
            "E_REQUEST",
            f"samples is {samples} and throttled_us is {throttled_us}; 1 or more is expected",
        )
