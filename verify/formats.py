"""Numbers as a reader wants them: separated, with the digits that matter, a true minus."""

from __future__ import annotations

import math


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
    """With its sign, a true minus; zero has none."""
    return f"{value:+.{digits}f}".replace("-", "−") if value else f"{0:.{digits}f}"


def chance(value: float) -> str:
    """A p value as an equation."""
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def words(value: str) -> str:
    """A constant as words: COULD_NOT_RUN is COULD NOT RUN."""
    return value.replace("_", " ")


FILTERS = {
    "chance": chance,
    "count": count,
    "exact": exact,
    "figure": figure,
    "percent": percent,
    "signed": signed,
    "words": words,
}
"""Their names in the page's template."""
