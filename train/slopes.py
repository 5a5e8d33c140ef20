"""How the end of a window of steps answers to what went into it, and the gradient of its rate."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .spiking import Spiking

Slopes = Mapping[str, tuple[Tensor, ...]]
"""By source, what its unit moves at the end of a window: the rate, the membrane v and, in CubaLIF,
the synaptic current i, each (B, ...) or (); what nobody asks for may be missing behind the rate.
The sources: ``current``, an offset on the current of every step; ``v`` and ``i``, the state that
the window began with; ``decay`` and ``synaptic_decay`` where they are learned."""


def sources(neuron: Spiking, begun: bool = False) -> tuple[str, ...]:
    """What the end of a window answers to; ``begun``: also to the state that it began with."""
    state = ("v",) if neuron.synaptic_decay is None else ("v", "i")
    return ("current", *(state if begun else ()), *neuron.learned)


def answered(mean: Tensor, rates: Tensor, windows: Sequence[Slopes], neuron: Spiking) -> Tensor:
    """``rates`` (K, B, ...) of consecutive windows, the first from rest, with a graph to ``mean``
    (K, B, ...), their mean currents, and to the decays that are learned."""
    wanted = [2 if neuron.synaptic_decay is None else 3] * len(windows)
    wanted[-1] = 1  # nothing follows that the last state could reach
    kept = [
        {source: tuple(islice(moved, count)) for source, moved in window.items()}
        for window, count in zip(windows, wanted, strict=True)
    ]
    layout = [{source: len(moved) for source, moved in window.items()} for window in kept]
    flat = (slope for window in kept for moved in window.values() for slope in moved)
    decays = (getattr(neuron, name) for name in neuron.learned)
    found: Tensor = _Rates.apply(  # type: ignore[no-untyped-call]
        rates, layout, neuron.learned, mean, *decays, *flat
    )
    return found


class _Rates(torch.autograd.Function):
    """The rates of windows; backward through their slopes, the last window first."""

    @staticmethod
    def forward(
        ctx: Any, rates: Tensor, layout: Sequence[Mapping[str, int]], learned: tuple[str, ...],
        mean: Tensor, *rest: Tensor,  # noqa: ARG004 - to have a gradient
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(*rest[len(learned) :])
        ctx.layout, ctx.learned = layout, learned
        ctx.dtypes = [decay.dtype for decay in rest[: len(learned)]]
        return rates.view_as(rates)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        windows = [
            {source: tuple(islice(saved, count)) for source, count in window.items()}
            for window in ctx.layout
        ]
        later: tuple[Tensor, ...] = ()
        to_mean: list[Tensor] = []
        to_decays: dict[str, list[Tensor]] = {name: [] for name in ctx.learned}
        for to_rate, window in zip(reversed(gradient.unbind()), reversed(windows), strict=True):
            due = {source: _due(moved, (to_rate, *later)) for source, moved in window.items()}
            to_mean.insert(0, due["current"])
            for name, parts in to_decays.items():
                parts.append(due[name].sum(dtype=torch.float64))
            later = tuple(due[part] for part in ("v", "i") if part in due)
        sums = [torch.stack(parts).sum() for parts in to_decays.values()]
        decays = [total.to(dtype) for total, dtype in zip(sums, ctx.dtypes, strict=True)]
        means = to_mean[0][None] if len(to_mean) == 1 else torch.stack(to_mean)
        return None, None, None, means, *decays, *[None] * len(ctx.saved_tensors)


def _due(moved: Sequence[Tensor], owed: Sequence[Tensor]) -> Tensor:
    """The gradient to a source: what it moved, each times the gradient to that."""
    total: Tensor = reduce(operator.add, map(operator.mul, moved, owed))
    return total
