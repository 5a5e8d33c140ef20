"""The energy report: counts, prices with their sources, sums with bounds, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .counts import LayerCounts
from .cutting import Excess
from .mapping import LayerUse


@dataclass(frozen=True)
class Amount:
    """pJ. ``value`` None: a price is missing or a count is not known; ``at_least`` is then the
    part that is known. ``low`` and ``high`` are bounds from the prices' bounds, not deviations;
    ``high`` None: no upper bound.
    """

    value: float | None
    at_least: float
    low: float
    high: float | None


@dataclass(frozen=True)
class Total:
    """A sum over all samples and for one inference on average.

    ``grade`` is that of the weakest price in it (U when one is missing); ``label`` is "" when
    nothing is left out, else "at least" or "unmapped, at least".
    """

    all_samples: Amount
    per_inference: Amount
    grade: str
    label: str


@dataclass(frozen=True)
class PriceUsed:
    """A price as it stands in the chip file, with the text of its sources."""

    key: str
    value: float
    low: float
    high: float
    kind: str
    cond: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """One count and what it costs over all samples. Without a price nothing is charged: the term
    is named in the report's ``unpriced``. Two prices: it is not known which holds for how many.
    """

    name: str
    what: str
    count: int
    prices: tuple[PriceUsed, ...]
    amount: Amount


@dataclass(frozen=True)
class HostTerm:
    """Work of the host, or a crossing of the chip's border: counted over all samples, unpriced."""

    name: str
    what: str
    count: int


@dataclass(frozen=True)
class StaticTerm:
    """Power of the whole chip while it runs.

    ``mode``: stream (T steps a sample, the pipeline full) or isolated (T and one for each layer
    of synapses on the way). ``clock``: free (as fast as it goes) or throttled. ``step_us``: length
    of a step, value, low, high.
    """

    mode: str
    clock: str
    steps: int
    step_us: tuple[float, float, float]
    chips: int
    prices: tuple[PriceUsed, ...]
    total: Total


@dataclass(frozen=True)
class Ann:
    """An ANN of the same shape on the same chip file: one MAC for every weight and element.

    ``macs`` of one inference; ``total`` None with a ``reason`` when the chip has no price for a
    MAC. ``partner_bits``: activation bits of the quantised ANN that a rate code of T steps is to
    be held against, ceil(log2(T+1)) (Yan et al., arXiv:2409.08290). ``reuse``, where a memory is
    priced: ``none``, every product fetches its weight and its input; ``full``, each is fetched
    once. ``snn_over_ann``: ratio of both dynamic energies, None unless both are complete.
    """

    name: str
    macs: int
    partner_bits: int
    reuse: str
    total: Total | None
    reason: str
    snn_over_ann: float | None


@dataclass(frozen=True)
class BreakEven:
    """Spikes of each input element of a layer in one inference: ``spikes`` as they were,
    ``even`` at which the layer would cost what the ANN's does (None: at none), ``margin``: how
    many times as many there could be. ``reuse``: of the ANN, as in `Ann`.
    """

    layer: str
    reuse: str
    spikes: float
    even: float | None
    margin: float | None


@dataclass(frozen=True)
class EnergyReport:
    """What a run costs on a chip, by count and price. ``dynamic`` is the chip's own work; static
    power and the host stand apart and are never added to it.

    ``ann`` is the first of ``baselines``. ``activity_range``: pJ of ``dynamic`` over all samples
    at the prices' own values, were every update inactive and were every update active.
    """

    chip: str
    title: str
    model: str
    number_format: str
    first_layer: str
    zeros: str
    samples: int
    steps: int
    layers: tuple[LayerCounts, ...]
    terms: tuple[Term, ...]
    dynamic: Total
    activity_range: tuple[float, float] | None
    static: tuple[StaticTerm, ...]
    host: tuple[HostTerm, ...]
    ann: Ann
    baselines: tuple[Ann, ...]
    break_even: tuple[BreakEven, ...]
    cores: tuple[LayerUse, ...]
    chips: int
    unmapped: tuple[Excess, ...]
    unchecked: tuple[str, ...]
    unpriced: tuple[str, ...]
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; energies in pJ."""
        return {"unit": "pJ", **asdict(self)}
