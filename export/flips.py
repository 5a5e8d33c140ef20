"""Spikes that a layer in integers emits otherwise than in floats, fed with the floats' spikes.

Teacher-forced: every layer sees what it saw in the float network, so that a change in one is not
charged to the next; its own membrane runs free.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.dynamics import WEIGHT_SHIFT, IntegerCell, State
from ..network.integer_sums import neuron_bias
from ..network.layers import Conv, Delay, Dense, Layer, Network, Operation, Synapse
from ..network.linear import through
from ..network.neurons import Resetting, Spiking
from ..network.simulate import frames_of, simulate
from ..network.trace import Record, unpack

SAMPLES = 256
"""Calibration inputs taken where nobody says how many."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs that scales are chosen on: ``x`` (B, *stored_shape), which ``rows`` of which
    ``source`` they are."""

    x: NDArray[Any]
    source: str
    rows: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """What finds the same inputs again: source, rows, digest. Plain values, for JSON."""
        return {"source": self.source, "rows": list(self.rows), "sha256": self.sha256}

    @property
    def sha256(self) -> str:
        """Digest of the inputs: dtype, shape, bytes."""
        values = np.ascontiguousarray(self.x)
        head = f"{values.dtype.str}{values.shape}".encode()
        return hashlib.sha256(head + values.tobytes()).hexdigest()


def _unbiased(operation: Operation) -> Operation:
    return replace(operation, bias=None) if isinstance(operation, Dense | Conv) else operation


class Teacher:
    """What a float network does on calibration inputs, for layers in integers to be held to."""

    def __init__(self, network: Network, calibration: Calibration) -> None:
        """Run ``network`` on all inputs. Raises RequestError (E_INPUT) for none."""
        steps = network.contract.steps
        if not len(calibration.x):
            raise RequestError("E_INPUT", "the calibration holds no input")
        self._network = network
        self._batches = []
        for start in range(0, len(calibration.x), BATCH):
            frames = network.frames(calibration.x[start : start + BATCH])
            shown, _ = frames_of(network, frames, steps)
            samples = shown.shape[1]
            trace = simulate(network, frames, steps, Record(spikes=samples))
            self._batches.append((shown, trace))

    def errors(
        self, layer: Layer, scale: NDArray[np.float64], shift: int = 0
    ) -> NDArray[np.float64]:
        """Changed spikes of a layer's channels, (C,); of a read-out the squared error of its
        values, with its integers taken back to floats by ``scale``.

        ``layer``: one of the network's, in integers, its sums shifted to the right.
        """
        total = np.zeros(layer.shape[0])
        bias = neuron_bias(self._network, layer)
        for frames, trace in self._batches:
            values = {self._network.input: frames}
            for synapse in layer.synapses:
                if synapse.source != self._network.input:
                    shape = self._network.shape_of(synapse.source)
                    values[synapse.source] = unpack(trace.spikes[synapse.source], shape)
            sums = sum(self._carried(layer, s, values[s.source]) for s in layer.synapses)
            whole = np.rint(sums).astype(np.int64)
            if isinstance(layer.neuron, Spiking):
                expected = unpack(trace.spikes[layer.name], layer.shape)
                wrong = self._spikes(layer, whole, bias) != expected.astype(bool)
            else:
                unit = scale * (1 << WEIGHT_SHIFT) / 2**shift
                found = ((whole >> shift << WEIGHT_SHIFT) + bias) / unit
                wrong = (found - trace.outputs.reshape(found.shape)) ** 2
            axes = (0, 1, *range(3, wrong.ndim))
            total += wrong.sum(axis=axes)
        return total

    def _carried(self, layer: Layer, synapse: Synapse, x: NDArray[Any]) -> NDArray[np.float32]:
        """Sums of one synapse at all steps, (T, B, *shape), exact in float32: below 2^17."""
        wait = self._network.lateness(layer, synapse)
        steps, samples = x.shape[:2]
        shown = np.zeros(x.shape, np.float32)
        shown[wait:] = x[: steps - wait] if wait < steps else 0
        bare = Synapse(
            synapse.source,
            tuple(_unbiased(op) for op in synapse.operations if not isinstance(op, Delay)),
        )
        sums = through(bare, shown.reshape(steps * samples, *x.shape[2:]))
        return np.asarray(sums.reshape(steps, samples, *layer.shape), np.float32)

    def _spikes(
        self, layer: Layer, sums: NDArray[np.int64], bias: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        if not isinstance(layer.neuron, Resetting):
            raise TypeError(f"{type(layer.neuron).__name__} has no integer step")
        cell = IntegerCell.of(
            layer.neuron, self._network.contract, lambda values: np.rint(values).astype(np.int64)
        )
        state, found = State(0, 0), []
        for total in sums:
            state = cell.membrane(state, total, bias)
            spike = cell.decide(state.v)
            state = cell.settle(state, spike)
            found.append(spike)
        return np.stack(found)
