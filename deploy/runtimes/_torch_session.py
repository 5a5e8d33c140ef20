"""A network on torch: exact sums where the grid allows them, layer by layer over blocks of steps.

On a grid every sum is exact in any order, unless an algorithm computes with other numbers than the
weights: Winograd (NNPACK, cuDNN) and TF32. Both are switched off for the length of a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...errors import CouldNotRunError, RequestError
from ...network import dynamics
from ...network.layers import AvgPool, Conv, Dense, Flatten, Layer, Network, Operation, SumPool
from ...network.neurons import Sum, decay_of
from ...network.shapes import shape_after
from ...network.trace import Record, Trace
from ..recording import Recorder, run_in_parts

BLOCK = 16
"""Steps folded into the batch at once: enough for speed, and memory does not grow with T."""


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


@dataclass(frozen=True)
class _Parameters:
    decay: Tensor
    threshold: Tensor
    v_reset: Tensor


class TorchSession:
    """One network with its weights on a device."""

    def __init__(self, network: Network, device: str) -> None:
        """Raises RequestError or CouldNotRunError (E_DEVICE) for a device that cannot be used."""
        self._network = network
        self._device = _device(device)
        self._weights = {
            operation: (self._tensor(operation.weight), self._bias(operation))
            for _, _, operation in network.operations()
            if isinstance(operation, Dense | Conv)
        }
        self._parameters = {
            layer.name: _Parameters(
                self._tensor(decay_of(layer.neuron)),
                self._tensor(layer.neuron.threshold),
                self._tensor(layer.neuron.v_reset),
            )
            for layer in network.layers
            if not isinstance(layer.neuron, Sum)
        }
        last = {s.source: layer.name for layer in network.layers for s in layer.synapses}
        self._done_after: dict[str, list[str]] = {}
        for source, reader in last.items():
            self._done_after.setdefault(reader, []).append(source)

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32)).to(self._device)

    def _bias(self, operation: Dense | Conv) -> Tensor | None:
        return None if operation.bias is None else self._tensor(operation.bias)

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames (B, *input_shape), shown at every step, or (T, B, *input_shape), to a Trace.

        Raises RequestError (E_INPUT) when the shape is not the network's.
        """
        with exact():
            return run_in_parts(self._network, x, steps, record, steps_held=BLOCK, run=self._part)

    def _part(self, frames: NDArray[np.float32], still: bool, recorder: Recorder) -> None:
        """All steps of some samples, in blocks; membranes live on from block to block."""
        membranes: dict[str, Tensor] = {}
        for start in range(0, frames.shape[0], BLOCK):
            block = frames[start : start + BLOCK]
            # A still input has one step, and so has all that follows from it without a state.
            values = {self._network.input: self._tensor(block[:1] if still else block)}
            for layer in self._network.layers:
                current = self._current(layer, values)
                value = current
                if not isinstance(layer.neuron, Sum):
                    current = current.expand(block.shape[0], *current.shape[1:])
                    value = self._steps(layer, current, membranes)
                values[layer.name] = value
                self._record(recorder, layer, current, value, block.shape[0])
                for source in self._done_after.get(layer.name, ()):
                    del values[source]

    def _record(
        self, recorder: Recorder, layer: Layer, current: Tensor, value: Tensor, steps: int
    ) -> None:
        whole = (steps, *current.shape[1:])
        seen, out = (np.broadcast_to(t.cpu().numpy(), whole) for t in (current, value))
        recorder.add(layer, seen, out)

    def _current(self, layer: Layer, values: dict[str, Tensor]) -> Tensor:
        """(steps or 1, B, *shape): every synapse once for all steps, folded into the batch."""
        terms = []
        for synapse in layer.synapses:
            source = values[synapse.source]
            folded = source.flatten(0, 1)
            for operation in synapse.operations:
                folded = self._apply(operation, folded)
            terms.append(folded.reshape(*source.shape[:2], *folded.shape[1:]))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def _apply(self, operation: Operation, x: Tensor) -> Tensor:
        match operation:
            case Dense():
                return functional.linear(x, *self._weights[operation])
            case Conv():
                weight, bias = self._weights[operation]
                return functional.conv2d(
                    x,
                    weight,
                    bias,
                    operation.stride,
                    operation.padding,
                    operation.dilation,
                    operation.groups,
                )
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

    def _steps(self, layer: Layer, current: Tensor, membranes: dict[str, Tensor]) -> Tensor:
        """Spikes (steps, B, *shape) as 0 and 1; leaves the last membrane in ``membranes``."""
        own, contract = self._parameters[layer.name], self._network.contract
        v = membranes.get(layer.name)
        v = torch.zeros_like(current[0]) if v is None else v
        spikes = torch.empty(current.shape, dtype=current.dtype, device=current.device)
        for t, c in enumerate(current):
            u = dynamics.integrate(v, c, own.decay)
            spikes[t] = dynamics.decide(u, own.threshold, contract.compare)
            v = dynamics.reset(u, spikes[t], own.threshold, own.v_reset, contract.reset)
        membranes[layer.name] = v
        return spikes


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError("E_DEVICE", f"torch knows no device '{name}'") from error
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise CouldNotRunError("E_DEVICE", f"torch cannot use '{name}' here: {reason}") from error
    return device
