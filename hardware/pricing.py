"""Counts times prices, in exact fractions: lines of a bill, their sums and their grades."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .chip import GRADES, Chip, Price
from .report import Amount, PriceUsed, Term, Total


@dataclass(frozen=True)
class Cost:
    """pJ, exact; ``value`` and ``high`` None: not known."""

    value: Fraction | None
    at_least: Fraction
    low: Fraction
    high: Fraction | None

    def amount(self, samples: int = 1) -> Amount:
        """As floats, each rounded once, divided by ``samples``."""
        return Amount(
            None if self.value is None else float(self.value / samples),
            float(self.at_least / samples),
            float(self.low / samples),
            None if self.high is None else float(self.high / samples),
        )

    def total(self, samples: int, grade: str, label: str) -> Total:
        """Over all samples and for one."""
        return Total(self.amount(), self.amount(samples), grade, label)


@dataclass(frozen=True)
class Line:
    """A count and its price: none when it is not published, two when it is not known which holds
    for how many. ``maybe``: it is not known how many of ``count`` there were.
    """

    name: str
    what: str
    count: int
    prices: tuple[Price, ...]
    maybe: bool = False

    def cost(self) -> Cost:
        """What the count costs."""
        if not self.count:
            return Cost(Fraction(0), Fraction(0), Fraction(0), Fraction(0))
        if not self.prices:
            return Cost(None, Fraction(0), Fraction(0), None)
        values = [self.count * Fraction(price.value) for price in self.prices]
        low = self.count * min(Fraction(price.low) for price in self.prices)
        return Cost(
            values[0] if len(values) == 1 and not self.maybe else None,
            Fraction(0) if self.maybe else min(values),
            Fraction(0) if self.maybe else low,
            self.count * max(Fraction(price.high) for price in self.prices),
        )

    def term(self, chip: Chip) -> Term:
        """The line as the report prints it."""
        prices = prices_used(chip, self.prices)
        return Term(self.name, self.what, self.count, prices, self.cost().amount())


def priced(*prices: Price | None) -> tuple[Price, ...]:
    """All of them, or none when one is missing."""
    found = tuple(price for price in prices if price is not None)
    return found if len(found) == len(prices) else ()


def _sum(parts: Iterable[Fraction | None]) -> Fraction | None:
    total = Fraction(0)
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def add(lines: Sequence[Line]) -> Cost:
    """The sum of lines; not known when one of them is not."""
    costs = [line.cost() for line in lines]
    return Cost(
        _sum(cost.value for cost in costs),
        sum((cost.at_least for cost in costs), Fraction(0)),
        sum((cost.low for cost in costs), Fraction(0)),
        _sum(cost.high for cost in costs),
    )


def weakest(prices: Iterable[Price]) -> str:
    """The weakest grade among prices; U when there are none."""
    return min((price.kind for price in prices), key=GRADES.index, default="U")


def grade(lines: Sequence[Line]) -> str:
    """Grade of a sum: that of its weakest price, U when one is missing."""
    counted = [line for line in lines if line.count]
    if not all(line.prices for line in counted):
        return "U"
    return weakest(price for line in counted for price in line.prices)


def unpriced(lines: Sequence[Line]) -> list[str]:
    """Names of the lines that count something and have no price."""
    return [line.name for line in lines if line.count and not line.prices]


def prices_used(chip: Chip, prices: Sequence[Price]) -> tuple[PriceUsed, ...]:
    """Prices with their keys in the chip file and the text of their sources."""
    return tuple(
        PriceUsed(
            price.key,
            float(price.value),
            float(price.low),
            float(price.high),
            price.kind,
            price.cond,
            tuple(chip.sources[key] for key in price.src),
        )
        for price in prices
    )
