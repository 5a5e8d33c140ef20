"""A network on torch: exact sums where the grid allows them, layer by layer over blocks of steps.

Layers that feed each other in a loop are run together, step by step; any other layer runs all
steps of a block at once.

On a grid every sum is exact in any order, unless an algorithm computes with other numbers than the
weights: Winograd (NNPACK, cuDNN) and TF32. Both are switched off for the length of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...errors import CouldNotRunError, RequestError
from ...network.dynamics import Cell, State
from ...network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Scale,
    SumPool,
    Synapse,
)
from ...network.loops import components
from ...network.neurons import Spiking, Sum
from ...network.shapes import shape_after
from ...network.trace import Record, Trace
from ..recording import Recorder, run_in_parts

BLOCK = 16
"""Steps folded into the batch at once: enough for speed, and memory does not grow with T."""


_Immediate = Dense | Conv | Conv1d | Scale | SumPool | AvgPool | Flatten
"""Operations whose output is of the same step as their input."""


@contextmanager
def exact() -> Iterator[None]:
    """No gradients, no TF32 or bfloat16 products, no Winograd; all as it was afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        # Without cuDNN torch convolves as a matrix product: cuDNN may choose Winograd or FFT.
        with (
            torch.no_grad(),
            torch.backends.nnpack.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass
class _Past:
    """What the samples of one part of a batch keep from step to step and from block to block.

    ``last``: for layers in a loop the value they emitted last. ``lines``: what is inside a delay.
    """

    steps: int
    last: dict[str, Tensor]
    states: dict[str, State] = field(default_factory=dict)
    lines: dict[str, Tensor] = field(default_factory=dict)

    def delayed(self, operation: Delay, x: Tensor) -> Tensor:
        """The next steps (steps, B, *shape) of what comes out of a delay they enter."""
        line = self.lines.get(operation.name)
        if line is None:  # one longer than the run lets nothing through either way
            line = x.new_zeros(min(operation.steps, self.steps), *x.shape[1:])
        both = torch.cat([line, x])
        self.lines[operation.name] = both[len(x) :]
        return both[: len(x)]


class TorchSession:
    """One network with its weights on a device."""

    def __init__(self, network: Network, device: str) -> None:
        """Raises RequestError or CouldNotRunError (E_DEVICE) for a device that cannot be used."""
        self._network = network
        self._device = _device(device)
        self._scales: dict[Scale, Tensor] = {}
        self._weights: dict[Dense | Conv | Conv1d, tuple[Tensor, Tensor | None]] = {}
        longest = 0
        for _, _, operation in network.operations():
            if isinstance(operation, Scale):
                self._scales[operation] = self._tensor(operation.scale)
            elif isinstance(operation, Dense | Conv | Conv1d):
                self._weights[operation] = (self._tensor(operation.weight), self._bias(operation))
            elif isinstance(operation, Delay):
                longest = max(longest, operation.steps)
        self._steps_held = BLOCK + longest
        self._cells = {
            layer.name: Cell.of(layer.neuron, network.contract, self._tensor)
            for layer in network.layers
            if not isinstance(layer.neuron, Sum)
        }
        self._groups = components(network)
        reader = {
            synapse.source: n
            for n, group in enumerate(self._groups)
            for layer in group
            for synapse in layer.synapses
        }
        self._done_after = [
            [source for source, last in reader.items() if last == n]
            for n in range(len(self._groups))
        ]

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32)).to(self._device)

    def _bias(self, operation: Dense | Conv | Conv1d) -> Tensor | None:
        return None if operation.bias is None else self._tensor(operation.bias)

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames (B, *input_shape), shown at every step, or (T, B, *input_shape), to a Trace.

        Raises RequestError (E_INPUT) when the shape is not the network's.
        """
        with exact():
            held = min(steps, self._steps_held)
            return run_in_parts(self._network, x, steps, record, steps_held=held, run=self._part)

    def _part(self, frames: NDArray[np.float32], still: bool, recorder: Recorder) -> None:
        """All steps of some samples, in blocks."""
        steps, batch = frames.shape[:2]
        looped = [layer for group in self._groups if _feeds_itself(group) for layer in group]
        zeros = {x.name: torch.zeros(batch, *x.shape, device=self._device) for x in looped}
        past = _Past(steps, zeros)
        for start in range(0, steps, BLOCK):
            block = frames[start : start + BLOCK]
            # A still input has one step, and so has all that follows from it without a memory.
            values = {self._network.input: self._tensor(block[:1] if still else block)}
            for group, done in zip(self._groups, self._done_after, strict=True):
                run = self._together if _feeds_itself(group) else self._alone
                for layer, (current, value) in run(group, values, len(block), past).items():
                    values[layer.name] = value
                    self._record(recorder, layer, current, value, len(block))
                for source in done:
                    del values[source]

    def _record(
        self, recorder: Recorder, layer: Layer, current: Tensor, value: Tensor, steps: int
    ) -> None:
        whole = (steps, *current.shape[1:])
        seen, out = (np.broadcast_to(t.cpu().numpy(), whole) for t in (current, value))
        recorder.add(layer, seen, out)

    def _alone(
        self, group: Sequence[Layer], values: dict[str, Tensor], steps: int, past: _Past
    ) -> dict[Layer, tuple[Tensor, Tensor]]:
        """Currents and values of the one layer of a group, (steps or 1, B, *shape)."""
        (layer,) = group
        terms = [self._through(s, values[s.source], steps, past) for s in layer.synapses]
        current = reduce(torch.add, terms)
        if isinstance(layer.neuron, Sum):
            return {layer: (current, current)}
        current = current.expand(steps, *current.shape[1:])
        return {layer: (current, torch.stack([self._step(layer, c, past) for c in current]))}

    def _together(
        self, group: Sequence[Layer], values: dict[str, Tensor], steps: int, past: _Past
    ) -> dict[Layer, tuple[Tensor, Tensor]]:
        """Currents and values (steps, B, *shape) of layers that feed each other.

        Among themselves a synapse finds in ``past.last`` the value of this step where its source
        has run already, otherwise that of the last step: a layer runs before those that it feeds,
        but for recurrent synapses.
        """
        inside = {layer.name for layer in group}
        found = {}
        for layer in group:
            current = torch.zeros(steps, *past.last[layer.name].shape, device=self._device)
            for synapse in layer.synapses:
                if synapse.source not in inside:
                    current += self._through(synapse, values[synapse.source], steps, past)
            found[layer] = (current, torch.empty_like(current))
        for t in range(steps):
            for layer, (current, value) in found.items():
                for synapse in layer.synapses:
                    if synapse.source in inside:
                        last = past.last[synapse.source].unsqueeze(0)
                        current[t] += self._through(synapse, last, 1, past)[0]
                value[t] = past.last[layer.name] = self._step(layer, current[t], past)
        return found

    def _through(self, synapse: Synapse, x: Tensor, steps: int, past: _Past) -> Tensor:
        """(steps or 1, B, *shape): a synapse once for all steps, folded into the batch."""
        for operation in synapse.operations:
            if isinstance(operation, Delay):
                x = past.delayed(operation, x.expand(steps, *x.shape[1:]))
            else:
                folded = self._apply(operation, x.flatten(0, 1))
                x = folded.reshape(*x.shape[:2], *folded.shape[1:])
        return x

    def _apply(self, operation: _Immediate, x: Tensor) -> Tensor:
        match operation:
            case Dense():
                return functional.linear(x, *self._weights[operation])
            case Conv() | Conv1d():
                weight, bias = self._weights[operation]
                run = functional.conv2d if isinstance(operation, Conv) else functional.conv1d
                return run(
                    x,
                    weight,
                    bias,
                    operation.stride,
                    operation.padding,
                    operation.dilation,
                    operation.groups,
                )
            case Scale():
                return x * self._scales[operation]
            case Flatten():
                return x.reshape(x.shape[0], *shape_after(operation, tuple(x.shape[1:])))
            case SumPool() | AvgPool():
                (height, width), area = operation.padding, operation.kernel
                # Padded here: torch's pooling takes no more padding than half a window.
                x = functional.pad(x, (width, width, height, height)) if height or width else x
                total: Tensor = functional.avg_pool2d(x, area, operation.stride, divisor_override=1)
                if isinstance(operation, SumPool):
                    return total
                # A tensor: by a Python number CUDA would multiply with a rounded reciprocal.
                return total / total.new_tensor(float(area[0] * area[1]))

    def _step(self, layer: Layer, current: Tensor, past: _Past) -> Tensor:
        """What a layer emits in one step, (B, *shape): spikes as 0 and 1, or numbers."""
        if isinstance(layer.neuron, Sum):
            return current
        cell = self._cells[layer.name]
        state = cell.membrane(past.states.get(layer.name, State()), current)
        value: Tensor = state.v
        if isinstance(layer.neuron, Spiking):
            value = cell.decide(value).to(current.dtype)
        past.states[layer.name] = cell.settle(state, value)
        return value


def _feeds_itself(group: Sequence[Layer]) -> bool:
    names = {layer.name for layer in group}
    return any(synapse.source in names for layer in group for synapse in layer.synapses)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError("E_DEVICE", f"torch knows no device '{name}'") from error
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise CouldNotRunError("E_DEVICE", f"torch cannot use '{name}' here: {reason}") from error
    return device
