"""Pieces of a network that are computed again in the backward pass, and what they keep until then.

A segment reaches from the spikes of some populations to those of the next. Of its inputs it keeps
one bit per spike; everything between is computed a second time, with a graph, when its gradient is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of a tensor: itself, or the bits of the spikes that it is the sum of.

    ``spikes``: None, or shape, strides and dtype of what the bits become again.
    """

    tensors: tuple[Tensor, ...]
    spikes: Tensor | None = None

    def restored(self, tensors: Iterable[Tensor]) -> Tensor:
        """The tensor, from ``tensors`` as they came back."""
        if self.spikes is None:
            (whole,) = tensors
            return whole
        like = self.spikes
        return reduce(add, (_unpacked(bits, like) for bits in tensors))


def as_bits(spikes: Tensor) -> Kept:
    """Zeros and ones of any shape, kept as bits in the order of memory: uint8, ceil(N / 8)."""
    like = torch.empty_like(spikes, device="meta")
    dense = spikes if spikes.stride() == like.stride() else torch.empty_like(spikes).copy_(spikes)
    flat = dense.detach().as_strided((spikes.numel(),), (1,))
    eights = F.pad(flat, (0, -len(flat) % 8)) if len(flat) % 8 else flat
    # A product with powers of two: the sums, up to 255, are exact in every floating format.
    values = 2.0 ** torch.arange(8, dtype=spikes.dtype, device=spikes.device)
    return Kept(((eights.view(-1, 8) @ values).to(torch.uint8),), like)


def _unpacked(bits: Tensor, like: Tensor) -> Tensor:
    numbers = torch.arange(256, device=bits.device)[:, None]
    rows = (numbers >> torch.arange(8, device=bits.device) & 1).to(like.dtype)
    flat = F.embedding(bits.int(), rows).flatten()
    return flat.as_strided(like.shape, like.stride())


def _alike(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both are spikes and lie in memory alike."""
    return a is not None and b is not None and (a.shape, a.stride()) == (b.shape, b.stride())


@dataclass(frozen=True, eq=False)
class Leaf:
    """An input of a segment."""

    kept: Kept


@dataclass(frozen=True, eq=False)
class Applied:
    """A function of values on their way through a segment, with the parameters in it."""

    function: Callable[..., Tensor]
    operands: tuple[Leaf | Applied, ...]
    parameters: tuple[Tensor, ...] = ()


Node = Leaf | Applied


def _walk(node: Node) -> Iterator[Applied]:
    if isinstance(node, Applied):
        yield node
        for operand in node.operands:
            yield from _walk(operand)


def _computed(node: Node, found: dict[Node, Tensor]) -> Tensor:
    if isinstance(node, Applied) and node not in found:
        found[node] = node.function(*(_computed(operand, found) for operand in node.operands))
    return found[node]


@dataclass(eq=False)
class Value:
    """A value with the way back to what it was computed from.

    ``now`` (T or 1, B, ...): with a graph where ``node`` is a leaf, else without; ``inputs``: the
    leaves it comes from with their tensors, which live no longer than the value.
    """

    now: Tensor
    node: Node
    inputs: dict[Leaf, Tensor]

    @staticmethod
    def leaf(now: Tensor, kept: Kept | None = None) -> Value:
        """An input of segments; kept as it is if not otherwise."""
        leaf = Leaf(kept or Kept((now.detach(),)))
        return Value(now, leaf, {leaf: now})

    def settle(self, kept: Callable[[Tensor], Kept] | None = None) -> Value:
        """End a segment here: from now on this value is a leaf. It is its own result."""
        if isinstance(self.node, Applied):
            parameters = {id(p): p for step in _walk(self.node) for p in step.parameters}
            now = _Segment.apply(  # type: ignore[no-untyped-call]
                self.now, self.node, tuple(self.inputs), *self.inputs.values(), *parameters.values()
            )
            settled = Value.leaf(now, kept and kept(now))
            self.now, self.node, self.inputs = settled.now, settled.node, settled.inputs
        return self


def applied(
    function: Callable[..., Tensor],
    values: Sequence[Value],
    parameters: Sequence[Tensor | None] = (),
    again: Callable[..., Tensor] | None = None,
) -> Value:
    """``function`` of ``values``, without a graph; ``again`` is what the backward pass computes,
    where the first time leaves traces that a second must not."""
    with torch.no_grad():
        now = function(*(value.now for value in values))
    nodes = tuple(value.node for value in values)
    given = tuple(parameter for parameter in parameters if parameter is not None)
    inputs = {leaf: tensor for value in values for leaf, tensor in value.inputs.items()}
    return Value(now, Applied(again or function, nodes, given), inputs)


def total(a: Value, b: Value) -> Value:
    """Sum of two leaves, a leaf: of spikes and spikes it keeps the bits of both."""
    now, kept = a.now + b.now, None
    if isinstance(a.node, Leaf) and isinstance(b.node, Leaf):
        left, right = a.node.kept, b.node.kept
        if _alike(left.spikes, right.spikes):
            kept = Kept((*left.tensors, *right.tensors), left.spikes)
    return Value.leaf(now, kept)


class _Segment(torch.autograd.Function):
    """The end of a segment: its value, known already; backward, the segment once more."""

    @staticmethod
    def forward(
        ctx: Any, now: Tensor, node: Node, leaves: tuple[Leaf, ...], *tensors: Tensor
    ) -> Tensor:
        kept = [tensor for leaf in leaves for tensor in leaf.kept.tensors]
        ctx.save_for_backward(*kept, *tensors[len(leaves) :])
        ctx.node, ctx.leaves, device = node, leaves, now.device.type
        ctx.autocast = torch.autocast(
            device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        )
        return now.view_as(now)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, needs = iter(ctx.saved_tensors), ctx.needs_input_grad[3:]
        found: dict[Node, Tensor] = {}
        for leaf, needed in zip(ctx.leaves, needs, strict=False):
            restored = leaf.kept.restored(islice(saved, len(leaf.kept.tensors)))
            found[leaf] = restored.detach().requires_grad_(needed)
        tensors = [*found.values(), *saved]
        with torch.enable_grad(), ctx.autocast:
            output = _computed(ctx.node, found)
        wanted = [tensor for tensor, needed in zip(tensors, needs, strict=True) if needed]
        gradients = iter(torch.autograd.grad(output, wanted, gradient))
        return None, None, None, *(next(gradients) if needed else None for needed in needs)
