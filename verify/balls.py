"""Exact numbers, each with a proven bound on what float32 can make of it.

A `Ball` is an exact value x and an error e: whoever evaluates the same expression in float32,
operation by operation, gets a number within e of x. u = 2^-24 is float32's unit roundoff.

    sum       fl(a + b) errs by at most u*|a + b|, and by no more than the smaller operand (the
              other one is a float32 number itself); so adding an exact zero does not round
    product   by a constant: u*|product|; by a power of two it is exact
    terms     a sum of n products and biases, in any order or tree, with or without FMA:
              at most (n - 1)*u*A + u*A for the products' own rounding, A the sum of the terms'
              magnitudes (C.-P. Jeannerod and S. M. Rump, Improved error bounds for inner products
              in floating-point arithmetic, SIAM J. Matrix Anal. Appl. 34, 2013, 338-344: for
              every n, without a factor 1 + O(n*u)). Products of spikes or with powers of two are
              exact. Zero terms are exact zeros and are not counted.

The operands of an operation are themselves rounded: its terms are as large as |x| + e, and the
errors that came in pass through with the weights' magnitudes. So bounds travel along chains of
operations and through layers that emit real numbers. Several synapses are one sum: their n and
their A add up. The recursion of a neuron is `network.dynamics.Cell` itself, run on balls.

Underflow is paid for with `TINY` per rounded operation, gradual or with results flushed to zero;
overflow is excluded (`proof` refuses it). Not sums of products, and so outside every bound:
Winograd, FFT, TF32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

U = 2.0**-24 * (1 + 2.0**-20)
"""float32's unit roundoff; the share above it pays for float64, in which balls are computed, and
for terms in u^2."""
TINY = 2.0**-126
"""What one operation can lose below the smallest normal float32."""


def powers_of_two(values: Any) -> Any:
    """Elementwise: whether products with a value are exact (a power of two, or 0)."""
    mantissa, _ = np.frexp(values)
    return (abs(mantissa) == 0.5) | (mantissa == 0)


@dataclass(frozen=True, eq=False)
class Ball:
    """Exact values and their errors, arrays of one library type; of a float32 array the balls
    are approximate (see `proof`)."""

    __array_ufunc__ = None  # an array on the left leaves the operation to the ball

    value: Any
    error: Any

    @property
    def reach(self) -> Any:
        """The largest magnitude a float32 evaluation can have."""
        return abs(self.value) + self.error

    def __add__(self, other: Any) -> Ball:
        """A rounded sum; anything but a ball is exact."""
        b = other if isinstance(other, Ball) else Ball(other, 0.0)
        value, error = self.value + b.value, self.error + b.error
        rounding = U * (abs(value) + error) + TINY
        # Twice the smaller operand: the sum in float64 loses no more than that either.
        return Ball(value, error + np.minimum(rounding, 2 * np.minimum(self.reach, b.reach)))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Ball:
        """A rounded difference."""
        return self + (Ball(-other.value, other.error) if isinstance(other, Ball) else -other)

    def __rmul__(self, factor: Any) -> Ball:
        """A rounded product with an exact constant."""
        size = abs(factor) * self.reach
        exact = powers_of_two(factor)
        rounding = TINY if exact.all() else np.where(exact, 0, U * size) + TINY
        return Ball(factor * self.value, abs(factor) * self.error + np.minimum(rounding, size))


Kind = Literal["spikes", "sent", "computed"]


@dataclass(frozen=True, eq=False)
class Terms:
    """A sum that may still grow: its value, the sum of its terms' magnitudes, how many terms are
    not zero, and the error that came in with them.

    ``extra``: roundings besides the additions. ``kind``: 0 and 1 as a source sent them, other
    values as sent, or the sum of an operation.
    """

    value: Any
    size: Any
    count: Any
    error: Any
    extra: int = 0
    kind: Kind = "computed"

    @staticmethod
    def sent(ball: Ball, kind: Kind) -> Terms:
        """Values that are there already, one term each."""
        reach = ball.reach
        return Terms(ball.value, reach, (reach > 0).astype(np.float64), ball.error, 0, kind)

    def __add__(self, other: Terms) -> Terms:
        """Two sums as one sum."""
        return Terms(
            self.value + other.value,
            self.size + other.size,
            self.count + other.count,
            self.error + other.error,
            max(self.extra, other.extra),
        )

    def each(self, change: Callable[[Any], Any]) -> Terms:
        """The same terms with all arrays changed alike."""
        parts = (self.value, self.size, self.count, self.error)
        value, size, count, error = (change(p) if np.ndim(p) else p for p in parts)
        return replace(self, value=value, size=size, count=count, error=error)


Rule = Callable[[Terms], Ball]
"""How far the evaluations that a rule allows can be from a sum of terms."""


def rounded(terms: Terms) -> Ball:
    """The sum as any float32 evaluation of the contract has it."""
    roundings = np.maximum(terms.count - 1 + terms.extra, 0)
    return Ball(terms.value, terms.error + roundings * (U * terms.size + TINY))


@dataclass(frozen=True)
class Map:
    """A linear operation in four ways: weights and biases as they are; their magnitudes; 1 where
    they are not 0; the weights' magnitudes alone. ``extra``: roundings besides its additions
    when its inputs are not 0 or 1."""

    value: Callable[[Any], Any]
    size: Callable[[Any], Any]
    count: Callable[[Any], Any]
    error: Callable[[Any], Any]
    extra: int

    def spread(self, terms: Terms, rule: Rule) -> Terms:
        """The terms that an operation makes of the sums before it."""
        x = rule(terms)
        reach = x.reach
        return Terms(
            self.value(x.value),
            self.size(reach),
            self.count((reach > 0).astype(np.float64)),
            self.error(x.error) if np.any(x.error) else 0.0,
            0 if terms.kind == "spikes" and self.extra == 1 else self.extra,
        )
