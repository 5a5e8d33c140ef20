"""Axis orders of arrays that others made, in letters: t steps, b samples, c h w or n neurons.

``bchwt`` is what slayer hands out, ``whct`` what Lava's RingBuffer holds of one sample. Ours is
``tb`` and the population's own axes: ``chw`` of an image, ``cl`` of a row of channels, ``n`` of a
flat population. The neurons of any population may also stand in one axis ``n``, in C, H, W order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .layers import Shape

Values = NDArray[Any]


def own_axes(shape: Shape) -> str:
    """The letters of a population's shape; RequestError (E_AXES) for more than three axes."""
    letters = {1: "n", 2: "cl", 3: "chw"}.get(len(shape))
    if letters is None:
        raise RequestError("E_AXES", f"a population of shape {list(shape)} has no axis letters")
    return letters


def _misfit(values: Values, axes: str, shape: Shape) -> str:
    """Why the letters do not name these axes; empty when they do."""
    own = own_axes(shape)
    inner = "".join(letter for letter in axes if letter not in "tb")
    if len(set(axes)) != len(axes) or sorted(inner) not in (sorted(own), ["n"]):
        return f"expected each letter of '{own}' or 'n' once, with or without t (steps) and b"
    if len(axes) != values.ndim:
        return f"an array of shape {list(values.shape)} has {values.ndim} axes"
    sizes = dict(zip(axes, values.shape, strict=True))
    wanted = {"n": int(np.prod(shape))} if inner == "n" else dict(zip(own, shape, strict=True))
    for letter, size in wanted.items():
        if sizes[letter] != size:
            return f"axis '{letter}' has {sizes[letter]} elements; expected {size}"
    return ""


def arranged(values: Values, axes: str, shape: Shape) -> Values:
    """An array whose axes are named to (T, B, *shape); T or B is 1 where no letter names it.

    Raises RequestError (E_AXES) when the letters do not name these axes.
    """
    if reason := _misfit(values, axes, shape):
        raise RequestError("E_AXES", f"axes '{axes}': {reason}")
    inner = "n" if "n" in axes else own_axes(shape)
    order = [letter for letter in f"tb{inner}" if letter in axes]
    moved = values.transpose([axes.index(letter) for letter in order])
    front = [moved.shape[order.index(letter)] if letter in axes else 1 for letter in "tb"]
    return moved.reshape(*front, *shape)


def orders(values: Values, shape: Shape) -> list[str]:
    """The usual orders of a recording that an array of a population with steps can be in."""
    own = own_axes(shape)
    usual = [
        f"tb{own}",
        f"b{own}t",
        f"{own[::-1]}t",
        f"t{own}",
        f"{own}t",
        "tbn",
        "bnt",
        "tn",
        "nt",
    ]
    return [axes for axes in dict.fromkeys(usual) if not _misfit(values, axes, shape)]
