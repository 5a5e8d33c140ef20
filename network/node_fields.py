"""Values of a NIR file, parameter by parameter: what each may be, brought to one form.

Every field takes what the file holds and gives a little-endian array, or raises RequestError with
a message that goes on behind the name of the place (``holds -0.5; expected numbers above 0``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

Array = NDArray[Any]
Value = Array | str | Mapping[str, Any]
"""What a file holds: numbers (0-d for one), a text, or a group."""
Field = Callable[[Value], Array]
Params = Mapping[str, Array]
"""The parameters of one node by name."""

MAX_SIZE = 2**28
"""Largest number of elements of a population or an image."""
MAX_EDGES = 100_000
"""Most edges of a graph, also once the graphs inside it are laid flat."""
MAX_DELAY = 2**20
"""Most steps a value can wait."""
LARGEST = float(np.finfo(np.float32).max)


def _numbers(value: Value, kinds: str) -> Array:
    if isinstance(value, str):
        raise RequestError("E_PARAM", f"is the text {value[:40]!r}; expected numbers")
    if not isinstance(value, np.ndarray):
        raise RequestError("E_PARAM", "is a group; expected numbers")
    if value.dtype.kind not in kinds:
        wanted = "whole numbers" if "f" not in kinds else "real numbers"
        raise RequestError("E_DTYPE", f"has dtype {value.dtype}; expected {wanted}")
    return value


def real(value: Value) -> Array:
    """Finite numbers as float32 or float64; float16 and whole numbers of up to 16 bits become
    float32, wider whole numbers float64."""
    raw = _numbers(value, "fiub")
    wide = raw.dtype.itemsize > (4 if raw.dtype.kind == "f" else 2)
    numbers = raw.astype("<f8" if wide else "<f4")
    if not numbers.size:
        raise RequestError("E_SHAPE", f"has shape {list(raw.shape)}; expected 1 or more elements")
    bad = ~(abs(numbers) <= LARGEST)
    if bad.any():
        at = np.unravel_index(int(bad.argmax()), numbers.shape)
        where = f" at {[int(i) for i in at]}" if at else ""
        raise RequestError(
            "E_VALUE", f"holds {numbers[at]}{where}; expected finite numbers that float32 can hold"
        )
    return numbers


def real_of_rank(rank: int, axes: str) -> Field:
    """Real numbers of a rank; ``axes`` names them in the message."""

    def parse(value: Value) -> Array:
        numbers = real(value)
        if numbers.ndim != rank:
            raise RequestError("E_SHAPE", f"has shape {list(numbers.shape)}; expected {axes}")
        return numbers

    return parse


def positive(value: Value) -> Array:
    """Real numbers above 0."""
    numbers = real(value)
    if numbers.min() <= 0:
        raise RequestError("E_VALUE", f"holds {numbers.min()}; expected numbers above 0")
    return numbers


def not_negative(value: Value) -> Array:
    """Real numbers of 0 or more."""
    numbers = real(value)
    if numbers.min() < 0:
        raise RequestError("E_VALUE", f"holds {numbers.min()}; expected no negative number")
    return numbers


def _whole(value: Value) -> Array:
    raw = _numbers(value, "iu")
    if raw.size and int(raw.max()) > np.iinfo(np.int64).max:
        raise RequestError("E_VALUE", f"holds {raw.max()}; expected a smaller number")
    return raw.astype("<i8")


def one(low: int, high: int) -> Field:
    """One whole number, 0-d."""

    def parse(value: Value) -> Array:
        number = _whole(value)
        if number.size != 1:
            raise RequestError("E_SHAPE", f"has shape {list(number.shape)}; expected one number")
        number = number.reshape(())
        if not low <= int(number) <= high:
            raise RequestError("E_VALUE", f"is {int(number)}; expected {low} to {high}")
        return number

    return parse


def whole(axes: int, names: str, low: int) -> Field:
    """One whole number per axis, or one for all."""
    high = 2**20

    def parse(value: Value) -> Array:
        numbers = _whole(value)
        if numbers.shape not in ((), (1,), (axes,)):
            raise RequestError(
                "E_SHAPE", f"has shape {list(numbers.shape)}; expected one number each for {names}"
            )
        if int(numbers.min()) < low or int(numbers.max()) > high:
            raise RequestError("E_VALUE", f"is {numbers.tolist()}; expected {low} to {high}")
        return np.array(np.broadcast_to(numbers, (axes,)))

    return parse


def pair(low: int) -> Field:
    """Two whole numbers (y, x), or one for both."""
    return whole(2, "y, x", low)


SAME = -1
"""Padding that keeps the size, until the node's other parameters say how much that is."""


def padding(axes: int, names: str) -> Field:
    """One whole number per axis, or the text ``valid`` for none, or ``same`` (`SAME`)."""

    def parse(value: Value) -> Array:
        if isinstance(value, str):
            if value not in ("valid", "same"):
                raise RequestError(
                    "E_PARAM", f"is the text {value[:40]!r}; expected numbers, 'valid' or 'same'"
                )
            return np.full(axes, SAME if value == "same" else 0, "<i8")
        return whole(axes, names, 0)(value)

    return parse


def sizes(value: Value) -> Array:
    """The axis lengths of a shape."""
    numbers = _whole(value)
    if numbers.ndim != 1 or not 1 <= numbers.size <= 8:
        raise RequestError(
            "E_SHAPE", f"has shape {list(numbers.shape)}; expected 1 to 8 axis lengths"
        )
    count = 1
    for n in numbers.tolist():
        count *= n
        if n < 1 or count > MAX_SIZE:
            raise RequestError(
                "E_SHAPE",
                f"is {numbers.tolist()}; expected axes of 1 or more, {MAX_SIZE} elements at most",
            )
    return numbers


def sizes_or_none(value: Value) -> Array:
    """The axis lengths of a shape; zeros stand for a shape that nobody knew."""
    numbers = _whole(value)
    return numbers if numbers.ndim == 1 and numbers.size and not numbers.any() else sizes(value)
