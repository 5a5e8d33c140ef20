"""The report as files: `report.json`, and one page `report.html` that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import CouldNotRunError
from ..files import write_text
from ..hardware.chip import KINDS

JSON, HTML = "report.json", "report.html"
PARTS = ("jinja2", "matplotlib")
STAGES = {
    "trained": "the module as it was trained",
    "folded": "normalisation folded into weights",
    "snapped": "weights on the grid: network.nir",
    "network": "the network as it was read",
    "integer": "whole numbers, as Loihi has them",
}
"""The networks of the chain, and what each is; every other name is a runtime."""
NETWORKS = {"float": "Float network", "integer": "Integer network"}
UNITS = (("J", 1e12), ("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3), ("pJ", 1.0))
"""Units of energy and what they are in pJ."""

Plain = dict[str, Any]


def page_missing() -> str | None:
    """Why there will be no page here, in one sentence; None when there will be one."""
    missing = [part for part in PARTS if find_spec(part) is None]
    if not missing:
        return None
    are = "is" if len(missing) == 1 else "are"
    return (
        f"{HTML} was not written: {' and '.join(missing)} {are} not installed; "
        "pip install 'snnpipe[report]'"
    )


def write_report(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``report.json`` and, where `page_missing` is None, ``report.html``; return the paths.

    Without the page's parts an older page is removed: it would show another verdict. Raises
    CouldNotRunError (E_WRITE).
    """
    plain = _plain(document)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    page = None if page_missing() else render(plain)
    paths = [folder / JSON]
    write_text(paths[0], text)
    if page is not None:
        paths.append(folder / HTML)
        write_text(paths[1], page)
        return paths
    try:
        (folder / HTML).unlink(missing_ok=True)
    except OSError as error:
        raise CouldNotRunError(
            "E_WRITE", f"cannot remove {folder / HTML}, an older report: {error.strerror}"
        ) from error
    return paths


def _plain(value: Any) -> Any:
    """Values that JSON and UTF-8 can hold: a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def render(document: Mapping[str, Any]) -> str:
    """The page of a report document; the same document gives the same text. Needs `PARTS`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=count, exact=exact, figure=figure, percent=percent, signed=signed, words=words
    )
    chain = document["chain"]
    energies = list(_energies(document))
    return environment.get_template("page.html").render(
        doc=document,
        stages=_stages(document),
        arrows=[{**arrow, **_equality(arrow)} for arrow in chain],
        firsts=list(_firsts(chain)),
        changes=_changes(document),
        by_steps=list(_by_steps(document)),
        charts=_charts(document),
        rates=list(_rates(document)),
        energies=energies,
        sources=_sources(energies),
        kinds={**KINDS, "U": "not published"},
        networks=NETWORKS,
        facts=list(_facts(document["facts"])),
    )


def count(value: float | None) -> str:
    """A number with thousands separators; fractions as far as they matter."""
    if value is None:
        return "—"
    if isinstance(value, int) or abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return figure(value)


def figure(value: float | None) -> str:
    """Four significant digits, thousands separated."""
    if value is None:
        return "—"
    if value == 0 or not 1e-3 <= abs(value) < 1e9:
        return f"{value:.4g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def exact(value: float | None) -> str:
    """As many digits as a float32 has."""
    return "—" if value is None else f"{value:.9g}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage, without the sign."""
    return "—" if share is None else f"{100 * share:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def words(value: str) -> str:
    """A constant as words: COULD_NOT_RUN is COULD NOT RUN."""
    return value.replace("_", " ")


def _equality(arrow: Plain) -> Plain:
    """What is claimed of an arrow, in words, and how many spikes changed of how many."""
    strength, verdict = arrow["strength"], arrow["verdict"]
    claim = f"equality {strength}"
    if verdict == "FAILED":
        claim = "check failed" if strength == "not claimed" else "not equal"
    if verdict == "COULD_NOT_RUN":
        claim = "undecided" if arrow["differences"] else "not compared"
    changed = within = decisions = None
    if arrow["differences"]:
        layers = arrow["differences"]["layers"]
        changed = sum(layer["changed"] for layer in layers)
        decisions = sum(layer["decisions"] for layer in layers)
    elif arrow["replay"]:
        changed = sum(layer["wrong"] for layer in arrow["replay"])
        within = sum(layer["within_rounding"] for layer in arrow["replay"])
        decisions = sum(layer["judged"] for layer in arrow["replay"])
    return {"claim": claim, "changed": changed, "within": within, "decisions": decisions}


def _stages(document: Mapping[str, Any]) -> list[Plain]:
    """The networks of the chain in order: the arrow into each, its accuracy, what runs it."""
    chain = document["chain"]
    sources = {arrow["from"] for arrow in chain} | set(STAGES)
    ends = [name for arrow in chain for name in (arrow["from"], arrow["to"])]
    names = [name for name in dict.fromkeys(ends) if name in sources]
    if document["trained_accuracy"] and "trained" not in names:
        names.insert(0, "trained")
    into = {arrow["to"]: {**arrow, **_equality(arrow)} for arrow in chain}
    stages = []
    for place, name in enumerate(names):
        arrow = into.get(name)
        measured = arrow["accuracy"] if arrow else None
        if name == "trained":
            measured = document["trained_accuracy"]
        elif not arrow and name in ("snapped", "network"):
            measured = _last(document, "float")
        runs = [into[to] for to in into if to not in names and into[to]["from"] == name]
        stages.append(
            {
                "name": name,
                "what": STAGES.get(name, ""),
                "arrow": arrow,
                "first": place == 0,
                "accuracy": measured,
                "runs": runs,
            }
        )
    return stages


def _last(document: Mapping[str, Any], network: str) -> Plain | None:
    rows = [row for row in document["by_steps"] if row["network"] == network]
    return max(rows, key=lambda row: row["steps"])["accuracy"] if rows else None


def _firsts(chain: Sequence[Plain]) -> Iterator[Plain]:
    """The first wrong value of every arrow that has one."""
    for arrow in chain:
        found = [arrow["differences"], *arrow["replay"]]
        first = next((part["first"] for part in found if part and part["first"]), None)
        if first:
            yield {**first, "arrow": arrow, "step": first["step"] + 1}


def _changes(document: Mapping[str, Any]) -> Plain:
    """Arrows that compared something, and per layer what changed at each of them."""
    arrows = [arrow for arrow in document["chain"] if arrow["differences"] or arrow["replay"]]
    columns = []
    for arrow in arrows:
        parts = (arrow["differences"] or {}).get("layers") or arrow["replay"]
        columns.append({part["layer"]: part for part in parts})
    rows = [
        {"layer": layer["layer"], "cells": [column.get(layer["layer"]) for column in columns]}
        for layer in document["network"]["layers"]
    ]
    return {"arrows": arrows, "rows": rows}


def _by_steps(document: Mapping[str, Any]) -> Iterator[Plain]:
    """Per network: a row for each T, and one column of energy for each price list."""
    for network, group in groupby(document["by_steps"], key=lambda row: row["network"]):
        rows = list(group)
        columns = []
        for price in rows[-1]["energy"]:
            totals = [row["energy"][price]["dynamic"] for row in rows]
            unit, size = unit_of([total["per_inference"] for total in totals])
            columns.append(
                {
                    "price": price,
                    "unit": unit,
                    "cells": [amount(t["per_inference"], size, t["label"]) for t in totals],
                }
            )
        yield {"network": network, "rows": rows, "columns": columns}


def unit_of(amounts: Sequence[Plain]) -> tuple[str, float]:
    """The unit that suits the largest amount, and its size in pJ."""
    largest = max((one["value"] or one["at_least"] for one in amounts), default=0.0)
    return next(((name, size) for name, size in UNITS if largest >= size), UNITS[-1])


def amount(value: Plain, size: float, label: str = "") -> Plain:
    """An amount in a unit of ``size`` pJ: the known value, its bounds, and what must be said."""
    known = value["at_least"] if value["value"] is None else value["value"]
    if value["high"] is None:
        bounds = f"{figure(value['low'] / size)} or more"
    elif value["low"] == value["high"]:
        bounds = ""
    else:
        bounds = f"{figure(value['low'] / size)}–{figure(value['high'] / size)}"
    if value["value"] is None and not label:
        label = "at least"
    return {"value": figure(known / size), "bounds": bounds, "label": label}


def _charts(document: Mapping[str, Any]) -> list[Plain]:
    from markupsafe import Markup

    from .charts import Series, line_chart

    right, work = [], []
    for network, group in groupby(document["by_steps"], key=lambda row: row["network"]):
        rows = list(group)
        steps = [row["steps"] for row in rows]
        shares = [row["accuracy"] for row in rows]
        parts = ([100 * share[key] for share in shares] for key in ("share", "low", "high"))
        right.append(Series(network, steps, *parts))
        work.append(Series(network, steps, [row["synops_per_sample"] for row in rows]))
    if not right:
        return []
    names = [series.name for series in right]
    return [
        {
            "title": "Accuracy after T steps",
            "note": f"bars: 95 % Wilson interval, n = {count(document['samples'])}",
            "names": names,
            "svg": line_chart(right, "Accuracy after T steps", " %"),
        },
        {
            "title": "Synaptic operations after T steps",
            "note": "mean of a sample",
            "names": names,
            "svg": line_chart(work, "Synaptic operations after T steps"),
        },
    ]


def _rates(document: Mapping[str, Any]) -> Iterator[Plain]:
    for network, group in groupby(document["rates"], key=lambda row: row["network"]):
        rows = list(group)
        yield {"network": network, "rows": rows, "steps": max(len(row["rate"]) for row in rows)}


def _energies(document: Mapping[str, Any]) -> Iterator[Plain]:
    """The energy reports at the trained T, each in one unit for its chip's own work."""
    for _, group in groupby(document["by_steps"], key=lambda row: row["network"]):
        last = list(group)[-1]
        for price, report in last["energy"].items():
            yield {"network": last["network"], "price": price, **_energy(report)}


def _energy(report: Plain) -> Plain:
    samples, dynamic, ann = report["samples"], report["dynamic"], report["ann"]
    mine = [dynamic["per_inference"]]
    unit, size = unit_of([*mine, ann["total"]["per_inference"]] if ann["total"] else mine)
    static = report["static"]
    static_unit, static_size = unit_of([one["total"]["per_inference"] for one in static])
    return {
        "report": report,
        "accounting": _accounting(report),
        "unit": unit,
        "terms": [
            {**term, "cost": amount(term["amount"], size * samples)} for term in report["terms"]
        ],
        "dynamic": amount(dynamic["per_inference"], size, dynamic["label"]),
        "readings": [value / size / samples for value in report["activity_range"] or ()],
        "ann": ann["total"] and amount(ann["total"]["per_inference"], size, ann["total"]["label"]),
        "static_unit": static_unit,
        "static": [
            {**one, "cost": amount(one["total"]["per_inference"], static_size)} for one in static
        ],
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
    return ", ".join(parts)


def _unpriced(report: Plain, name: str) -> str:
    known = {term["name"]: term["what"] for term in (*report["terms"], *report["host"])}
    return str(known.get(name, name))


def _sources(energies: Sequence[Plain]) -> dict[str, int]:
    """Every source text to the number of its footnote, in the order of the page."""
    numbers: dict[str, int] = {}
    for energy in energies:
        for term in (*energy["report"]["terms"], *energy["report"]["static"]):
            for price in term["prices"]:
                for source in price["sources"]:
                    numbers.setdefault(source, len(numbers) + 1)
    return numbers


def _facts(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Facts as pairs of name and text; what is nested carries the names above it."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{name}: ")
        elif isinstance(value, list):
            yield prefix + name, ", ".join(str(part) for part in value)
        else:
            yield prefix + name, "—" if value is None else str(value)
