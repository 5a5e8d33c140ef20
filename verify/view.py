"""What the page shows, worked out of a report document: plain values for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any, get_args

from ..hardware.chip import KINDS
from ..network.neurons import Neuron, Spiking
from .energy_view import amount, energies, footnotes, scale_of
from .formats import count

Plain = dict[str, Any]
STAGES = {
    "trained": "the module as it was trained",
    "folded": "normalisation folded into weights",
    "snapped": "weights on the grid: network.nir",
    "network": "the network as it was read",
    "integer": "whole numbers, as Loihi has them",
}
"""The networks of the chain, and what each is; every other name is a runtime."""
SILENT = {kind.__name__ for kind in get_args(Neuron)} - {
    kind.__name__ for kind in get_args(Spiking)
}
"""Neurons that never fire: what is judged of them are values."""
COLUMNS = 16
"""Most columns of the table of firing rates."""
NETWORKS = {"float": "Float network", "integer": "Integer network"}


def view(document: Mapping[str, Any]) -> Plain:
    """Everything the template needs besides the document itself."""
    rows = document["network"]["layers"]
    silent = {row["layer"] for row in rows if row["neuron"] in SILENT}
    arrows = [_told(arrow, silent) for arrow in document["chain"]]
    priced = list(energies(document["by_steps"]))
    sources = footnotes(priced)
    return {
        "stages": _stages(document, arrows),
        "arrows": arrows,
        "firsts": list(_firsts(arrows)),
        "changes": _changes(document, arrows, silent),
        "by_steps": list(_by_steps(document)),
        "charts": _charts(document),
        "rates": list(_rates(document)),
        "energies": priced,
        "sources": sources,
        "numbers": lambda prices: sorted({sources[s] for p in prices for s in p["sources"]}),
        "kinds": {**KINDS, "U": "not published"},
        "networks": NETWORKS,
        "facts": list(_facts(document["facts"])),
    }


def _claim(arrow: Plain) -> str:
    """What is claimed of an arrow, in words."""
    strength = arrow["strength"]
    if arrow["verdict"] == "FAILED":
        failed = {"not claimed": "check failed", "certified by replay": "wrong by replay"}
        return failed.get(strength, "not equal")
    if arrow["verdict"] == "COULD_NOT_RUN":
        return "not compared"
    return str(strength) if strength == "certified by replay" else f"equality {strength}"


def _told(arrow: Plain, silent: set[str]) -> Plain:
    """An arrow with its claim, its changed spikes (``silent`` layers have none), and what else
    differs where equality is claimed. Where it was replayed, changed are those that are wrong, and
    ``apart`` those that are not the reference's."""
    changed = within = decisions = apart = None
    other: list[str] = []
    if arrow["differences"]:
        found = arrow["differences"]
        changed = sum(layer["changed"] for layer in found["layers"])
        decisions = sum(layer["decisions"] for layer in found["layers"])
        currents = sum(layer["currents_changed"] for layer in found["layers"])
        if arrow["strength"] == "proven":
            parts = (("outputs", found["outputs_changed"]), ("currents", currents))
            other = [f"{count(number)} {what}" for what, number in parts if number]
    if arrow["replay"]:
        spiking = [layer for layer in arrow["replay"] if layer["layer"] not in silent]
        apart, changed = changed, sum(layer["wrong"] for layer in spiking)
        within = sum(layer["within_rounding"] for layer in spiking)
        decisions = sum(layer["judged"] for layer in spiking)
        wrong = sum(layer["wrong"] for layer in arrow["replay"]) - changed
        other = [f"{count(wrong)} outputs"] if wrong else []
    return {
        **arrow,
        "claim": _claim(arrow),
        "changed": changed,
        "within": within,
        "apart": apart,
        "decisions": decisions,
        "other": other,
    }


def _stages(document: Mapping[str, Any], arrows: Sequence[Plain]) -> list[Plain]:
    """The networks of the chain in order: the arrow into each, its accuracy, what runs it."""
    sources = {arrow["from"] for arrow in arrows} | set(STAGES)
    ends = [name for arrow in arrows for name in (arrow["from"], arrow["to"])]
    names = [name for name in dict.fromkeys(ends) if name in sources]
    if document["trained_accuracy"] and "trained" not in names:
        names.insert(0, "trained")
    into = {arrow["to"]: arrow for arrow in arrows}
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


def _firsts(arrows: Sequence[Plain]) -> Iterator[Plain]:
    """The first wrong value of every arrow that has one."""
    for arrow in arrows:
        found = [arrow["differences"], *arrow["replay"]]
        first = next((part["first"] for part in found if part and part["first"]), None)
        if first:
            yield {**first, "arrow": arrow, "step": first["step"] + 1}


def _changes(document: Mapping[str, Any], arrows: Sequence[Plain], silent: set[str]) -> Plain:
    """Arrows that compared something, and per layer what changed at each of them."""
    arrows = [arrow for arrow in arrows if arrow["differences"] or arrow["replay"]]
    columns = []
    for arrow in arrows:
        parts = arrow["replay"] or arrow["differences"]["layers"]
        columns.append({part["layer"]: part for part in parts})
    counted = [layer for a in arrows if a["differences"] for layer in a["differences"]["layers"]]
    rows = []
    for name in (layer["layer"] for layer in document["network"]["layers"]):
        cells = [column.get(name) for column in columns]
        decisions = max((x["decisions"] for x in counted if x["layer"] == name), default=0)
        row = {"layer": name, "cells": cells, "decisions": decisions, "silent": name in silent}
        rows.append(row)
    return {"arrows": arrows, "rows": rows}


def _by_steps(document: Mapping[str, Any]) -> Iterator[Plain]:
    """Per network: a row for each T, and one column of energy for each price list."""
    for network, group in groupby(document["by_steps"], key=lambda row: row["network"]):
        rows = list(group)
        columns = []
        for price in rows[-1]["energy"]:
            totals = [row["energy"][price]["dynamic"] for row in rows]
            scale = scale_of([total["per_inference"] for total in totals])
            cells = [amount(t["per_inference"], scale, t["label"]) for t in totals]
            labels = {cell["label"] for cell in cells}
            label = labels.pop() if len(labels) == 1 else ""
            column = {"price": price, "unit": scale.unit, "label": label, "cells": cells}
            columns.append(column)
        yield {"network": network, "rows": rows, "columns": columns}


def _charts(document: Mapping[str, Any]) -> list[Plain]:
    from .charts import Series, line_chart

    right, work = [], []
    for network, group in groupby(document["by_steps"], key=lambda row: row["network"]):
        rows = list(group)
        steps = [row["steps"] for row in rows]
        shares = [row["accuracy"] for row in rows]
        if all(shares):
            parts = ([100 * share[key] for share in shares] for key in ("share", "low", "high"))
            right.append(Series(network, steps, *parts))
        work.append(Series(network, steps, [row["synops_per_sample"] for row in rows]))
    interval = f"bars: 95 % Wilson interval, n = {count(document['samples'])}"
    charts = (
        ("Accuracy after T steps", interval, right, " %"),
        ("Synaptic operations after T steps", "mean of a sample", work, ""),
    )
    return [
        {
            "title": title,
            "note": note,
            "names": [one.name for one in series],
            "svg": line_chart(series, title, unit),
        }
        for title, note, series, unit in charts
        if series
    ]


def _rates(document: Mapping[str, Any]) -> Iterator[Plain]:
    for network, group in groupby(document["rates"], key=lambda row: row["network"]):
        rows = list(group)
        spans = _spans(max(len(row["rate"]) for row in rows))
        means = [
            {"layer": row["layer"], "rate": [fmean(row["rate"][a:b]) for a, b in spans]}
            for row in rows
        ]
        names = [f"step {a + 1}" if b == a + 1 else f"{a + 1}–{b}" for a, b in spans]
        yield {"network": network, "rows": means, "steps": names}


def _spans(steps: int) -> list[tuple[int, int]]:
    """Each step of a few; of many, `COLUMNS` stretches about equally long."""
    count = min(steps, COLUMNS)
    ends = [round(n * steps / count) for n in range(count + 1)]
    return list(pairwise(ends))


def _facts(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Facts as pairs of name and text; what is nested carries the names above it."""
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{name}: ")
        elif isinstance(value, list):
            yield prefix + name, "; ".join(str(part) for part in value) or "nothing"
        else:
            yield prefix + name, "—" if value is None else str(value)
