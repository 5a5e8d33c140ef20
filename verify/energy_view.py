"""Energy reports as the page shows them: one unit a column, bounds, and what must be said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Plain = dict[str, Any]
UNITS = (("J", 1e12), ("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3), ("pJ", 1.0))
"""Units of energy and what they are in pJ."""


@dataclass(frozen=True)
class Scale:
    """One unit and one number of decimals for a column of energies; ``size`` is the unit in pJ."""

    unit: str
    size: float
    digits: int

    def text(self, pj: float) -> str:
        """A number in this column; what rounds to nothing is said to be below its last digit."""
        text = f"{pj / self.size:,.{self.digits}f}"
        if pj > 0 and not text.strip("0.,"):
            return f"< {10.0**-self.digits:.{self.digits}f}"
        return text


def scale_of(amounts: Sequence[Plain]) -> Scale:
    """The unit that suits the largest amount, which gets four digits."""
    largest = max((one["value"] or one["at_least"] for one in amounts), default=0.0)
    unit, size = next(((unit, size) for unit, size in UNITS if largest >= size), UNITS[-1])
    whole = math.floor(math.log10(largest / size)) if largest else 0
    return Scale(unit, size, min(6, max(0, 3 - whole)))


def amount(value: Plain, scale: Scale, label: str = "", parts: int = 1) -> Plain:
    """An amount, divided by ``parts``: the known value, its bounds, and what must be said."""
    known = value["at_least"] if value["value"] is None else value["value"]
    low, high = value["low"], value["high"]
    if high is None:
        bounds = f"{scale.text(low / parts)} or more"
    elif low == high:
        bounds = ""
    else:
        ends = (scale.text(low / parts), scale.text(high / parts))
        bounds = "–".join(ends) if ends[0] != ends[1] else ""
    if value["value"] is None and not label:
        label = "at least"
    return {"value": scale.text(known / parts), "bounds": bounds, "label": label}


def energies(by_steps: Sequence[Plain]) -> Iterator[Plain]:
    """The energy reports at the trained T, each in one unit for its chip's own work."""
    for _, group in groupby(by_steps, key=lambda row: row["network"]):
        last = list(group)[-1]
        for price, report in last["energy"].items():
            yield {"network": last["network"], "price": price, **_energy(report)}


def _energy(report: Plain) -> Plain:
    samples, dynamic, ann = report["samples"], report["dynamic"], report["ann"]
    mine = [dynamic["per_inference"]]
    scale = scale_of([*mine, ann["total"]["per_inference"]] if ann["total"] else mine)
    static = report["static"]
    still = scale_of([one["total"]["per_inference"] for one in static])
    return {
        "report": report,
        "accounting": _accounting(report),
        "unit": scale.unit,
        "terms": [
            {**term, "cost": amount(term["amount"], scale, parts=samples)}
            for term in report["terms"]
        ],
        "dynamic": amount(dynamic["per_inference"], scale, dynamic["label"]),
        "readings": [scale.text(value / samples) for value in report["activity_range"] or ()],
        "ann": ann["total"] and amount(ann["total"]["per_inference"], scale, ann["total"]["label"]),
        "baselines": [
            {**one, "cost": amount(one["total"]["per_inference"], scale, one["total"]["label"])}
            for one in report["baselines"]
            if one["total"]
        ],
        "static_unit": still.unit,
        "static": [{**one, "cost": amount(one["total"]["per_inference"], still)} for one in static],
        "unpriced": [_unpriced(report, name) for name in report["unpriced"]],
    }


def _accounting(report: Plain) -> str:
    """The way of counting, by name: no joule stands without it."""
    where = {
        "host": "first layer on the host",
        "once": "first layer computed once",
        "per_step": "first layer at every step",
        "none": "spikes as input",
    }
    zeros = {"count": "zeros counted", "skip": "zeros skipped"}
    parts = [
        f"{report['model']} {report['number_format']}".strip(),
        where.get(report["first_layer"], report["first_layer"]),
        zeros.get(report["zeros"], report["zeros"]),
    ]
    return ", ".join(str(part) for part in parts)


def _unpriced(report: Plain, name: str) -> str:
    known = {term["name"]: term["what"] for term in (*report["terms"], *report["host"])}
    return str(known.get(name, name))


def footnotes(priced: Sequence[Plain]) -> dict[str, int]:
    """Every source text to the number of its footnote, in the order of the page."""
    numbers: dict[str, int] = {}
    for energy in priced:
        for term in (*energy["report"]["terms"], *energy["report"]["static"]):
            for price in term["prices"]:
                for source in price["sources"]:
                    numbers.setdefault(source, len(numbers) + 1)
    return numbers
