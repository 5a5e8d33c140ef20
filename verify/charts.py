"""Small line charts by number of steps, as inline SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

INK, LINE = "#000001", "#000002"
SERIES = ("#000003", "#000004")
COLOURS = {
    INK: "var(--muted)",
    LINE: "var(--line)",
    SERIES[0]: "var(--series-1)",
    SERIES[1]: "var(--series-2)",
}
"""Stand-ins that matplotlib draws with, and the page's variables that take their place."""
STYLES = (("o", "-"), ("s", (0, (4, 2))))
"""Marker and dash of each series, so that colour is not all that tells them apart."""

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.size": 12,
    "axes.edgecolor": LINE,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 1,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.left": False,
    "xtick.major.size": 4,
    "errorbar.capsize": 3,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Series:
    """Values by number of steps, with bounds where there are any (same length, or empty)."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def reach(self) -> list[list[float]] | None:
        """How far the bounds lie below and above each value."""
        if not self.low:
            return None
        below = [value - low for value, low in zip(self.values, self.low, strict=True)]
        above = [high - value for value, high in zip(self.values, self.high, strict=True)]
        return [[max(0.0, gap) for gap in gaps] for gaps in (below, above)]


def line_chart(series: Sequence[Series], title: str, unit: str = "") -> str:
    """One chart as an ``<svg>`` element; the same series give the same text. Needs matplotlib.

    At most two series; ``title`` is what a screen reader says; the axis ticks carry ``unit``.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not show in a report
        mpl.rcParams.update(_SETTINGS)
        mpl.rcParams["svg.hashsalt"] = title
        figure = Figure(figsize=(420 / 72, 230 / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        shift = 0.05 * (len(series) - 1) if any(one.low for one in series) else 0.0
        for one, colour, (marker, dash) in zip(series, SERIES, STYLES, strict=False):
            axes.errorbar(
                [step - shift for step in one.steps],
                one.values,
                yerr=one.reach(),
                color=colour,
                marker=marker,
                markersize=5,
                linestyle=dash,
                linewidth=1.75,
                elinewidth=1.25,
            )
            shift = -shift
        axes.set_xlabel("steps T")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        # A percentage is not shortened; counts and energies are (98.9 k).
        axes.yaxis.set_major_formatter(f"{{x:g}}{unit}" if unit else EngFormatter(sep=" "))
        axes.margins(x=0.06, y=0.12)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format")))
    return _inline(stream.getvalue(), title)


def _inline(text: str, title: str) -> str:
    """What matplotlib wrote, made part of a page: no header, links or fonts, colours by name."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    box = re.search(r'viewBox="([^"]+)"', body)
    view = box.group(1) if box else ""
    label = re.sub(r"[^\w .,%()]", "", title)
    head = f'<svg class="chart" role="img" aria-label="{label}" viewBox="{view}">'
    body = head + body[body.index(">") + 1 :]
    body = re.sub(r"(font: *[\d.]+px) [^;\"]+", r"\1 system-ui, sans-serif", body)
    body = re.sub(r"font-family: *[^;\"]+", "font-family: system-ui, sans-serif", body)
    for stand_in, variable in COLOURS.items():
        body = body.replace(stand_in, variable)
    return "\n".join(line.rstrip() for line in body.splitlines() if line.strip())
