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

MAX_SIZE = 2**28
"""Largest number of elements of a population or an image."""
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


def pair(low: int) -> Field:
    """Two whole numbers (y, x), or one for both."""
    high = 2**20

    def parse(value: Value) -> Array:
        numbers = _whole(value)
        if numbers.shape not in ((), (1,), (2,)):
            raise RequestError(
                "E_SHAPE", f"has shape {list(numbers.shape)}; expected two numbers (y, x)"
            )
        if int(numbers.min()) < low or int(numbers.max()) > high:
            raise RequestError("E_VALUE", f"is {numbers.tolist()}; expected {low} to {high}")
        return np.array(np.broadcast_to(numbers, (2,)))

    return parse


def padding(value: Value) -> Array:
    """Two whole numbers (y, x), or the text ``valid`` for none."""
    if isinstance(value, str):
        if value == "valid":
            return np.zeros(2, "<i8")
        raise RequestError(
            "E_PARAM", f"is the text {value[:40]!r}; expected two numbers, or 'valid'"
        )
    return pair(0)(value)


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
