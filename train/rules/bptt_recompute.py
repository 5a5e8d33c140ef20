"""Backpropagation through time with recomputation: the same gradient, spikes kept as bits.

From population to population nothing is kept but the spikes between them, one bit each; the
backward pass computes each such segment again with a graph, one at a time. That costs a second
forward pass, 4 T linear maps per layer where BPTT takes 3 T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import add, mul
from typing import ClassVar

from torch import Tensor, nn

from .. import eager, neuron
from ..frames import in_time, joined, through
from ..operations import FixedMap, LinearMap, Norm
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..segments import Applied, Leaf, Value, applied, as_bits, total
from ..spiking import Population, Spiking
from .bptt import BPTT, Unrolled


@dataclass(frozen=True)
class Recomputed:
    """The value knows how to compute itself again; what is done to it is what BPTT does."""

    plain: Unrolled
    watch: Watch | None = None

    def example(self, value: Value) -> Tensor:
        """One step, (B, ...)."""
        return value.now[0]

    def linear(self, value: Value, operation: LinearMap) -> Value:
        """A convolution or a matrix product."""
        parameters = (operation.weight, operation.bias)
        return applied(lambda x: self.plain.linear(x, operation), [_opened(value)], parameters)

    def normalise(self, value: Value, norm: Norm) -> Value:
        """Batch normalisation; its running statistics move the first time only."""
        still = replace(norm, running_mean=None, running_var=None) if norm.training else norm
        return applied(
            lambda x: self.plain.normalise(x, norm),
            [_opened(value)],
            (norm.weight, norm.bias),
            again=lambda x: self.plain.normalise(x, still),
        )

    def fire(self, value: Value, module: Population) -> Value:
        """Currents to spikes: the end of a segment."""
        spiking, steps = module.spiking, self.plain.steps

        def fired(x: Tensor) -> Tensor:
            return neuron.unrolled(x.expand(steps, *x.shape[1:]), spiking)

        return self._spikes(applied(fired, [value], _learned(spiking)), module)

    def recur(self, value: Value, module: Population, weights: LinearMap) -> Value:
        """Currents to spikes, the recurrent map within the segment."""
        spiking, steps = module.spiking, self.plain.steps

        def fired(x: Tensor) -> Tensor:
            return eager.recurrent(x.expand(steps, *x.shape[1:]), spiking, weights)

        parameters = (*_learned(spiking), weights.weight, weights.bias)
        return self._spikes(applied(fired, [value], parameters), module)

    def _spikes(self, value: Value, module: Population) -> Value:
        value.settle(as_bits)
        if self.watch is not None:
            self.watch(module, value.now)
        return value

    def fixed(self, value: Value, operation: FixedMap) -> Value:
        """Pooling, flatten, reshape."""
        return applied(lambda x: self.plain.fixed(x, operation), [_opened(value)])

    def scale(self, value: Value, factor: float | Tensor) -> Value:
        """Multiply by a number, or by a mask (B, ...), which is kept."""
        if isinstance(factor, Tensor):
            return applied(mul, [_opened(value), Value.leaf(factor)])
        return applied(lambda x: x * factor, [_opened(value)])

    def add(self, a: Value, b: Value) -> Value:
        """Sum of two values: of spikes at once, of currents as a part of the segment, unless one of
        them is kept already: it flows through the net (see `_opened`), and so will the sum."""
        parts = [_opened(a), _opened(b)]
        leaves = [part.node for part in parts if isinstance(part.node, Leaf)]
        if len(leaves) == 2:
            return total(*parts)
        result = applied(add, parts)
        return result if all(leaf.kept.spikes is not None for leaf in leaves) else result.settle()

    def join(self, values: Sequence[Value], axis: int) -> Value:
        """Concatenation."""
        return applied(lambda *parts: joined(parts, axis), [_opened(value) for value in values])

    def replace(self, value: Value, function: Callable[[Tensor], Tensor], name: str) -> Value:
        """A function that is not linear."""
        return applied(lambda x: self.plain.replace(x, function, name), [_opened(value)])


def _learned(spiking: Spiking) -> list[Tensor]:
    return [getattr(spiking, name) for name in spiking.learned]


def _opened(value: Value) -> Value:
    """A value to go on from. A sum of currents that does not go straight into neurons is kept: it
    may flow on past them (pre-activation residuals), and its past must not be computed twice."""
    is_sum = isinstance(value.node, Applied) and value.node.function is add
    return value.settle() if is_sum else value


@dataclass(frozen=True)
class RecomputedBPTT:
    """Backpropagation through time, layer by layer recomputed."""

    name: ClassVar[str] = "bptt_recompute"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = BPTT.trains
    why: ClassVar[str] = ""
    online: ClassVar[bool] = False

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "joint",
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """One part: the outputs of all steps, with a graph through every step."""
        treatment = Recomputed(Unrolled(steps, norm=norm), watch)
        output = through(model, Value.leaf(in_time(frames, steps)), treatment)
        yield Part(output.settle().now)


PLUGIN = RecomputedBPTT
