"""A batch in parts that fit into memory, and what each part did, collected into one Trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.layers import Layer, Network
from ..network.neurons import Spiking
from ..network.simulate import frames_of
from ..network.trace import Record, Trace, join, pack

Values = NDArray[np.float32]

MOST_SAMPLES = 500
"""Samples run at once; more gain no speed on a processor."""
MEMORY = 512 * 2**20
"""Bytes that the values of one part may take, roughly."""


class Recorder:
    """What the layers of one part of a batch did. Steps of a layer must be added in order."""

    def __init__(self, network: Network, frames: Values, spikes: int, currents: int) -> None:
        """``frames`` (T, B, *input_shape); keeps the spikes of the first ``spikes`` samples and
        the currents of the first ``currents``.
        """
        names = [layer.name for layer in network.layers]
        spiking = [layer.name for layer in network.layers if isinstance(layer.neuron, Spiking)]
        self._network, self._frames = network, frames
        self._keep_spikes, self._keep_currents = spikes, currents
        self._fired: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
        self._active: dict[str, list[NDArray[np.int64]]] = {name: [] for name in spiking}
        self._spikes: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in spiking}
        self._currents: dict[str, list[Values]] = {name: [] for name in names}
        self._outputs: list[Values] = []

    def add(self, layer: Layer, current: Values, value: Values) -> None:
        """The next steps of a layer: current and value (spikes or a sum), (steps, B, *shape)."""
        fires = value != 0
        steps, batch = fires.shape[:2]
        # Fewer than 2^32 samples: the narrow sum is exact and much faster than one in int64.
        self._fired[layer.name].append(fires.sum(axis=1, dtype=np.uint32).astype(np.int64))
        if layer.name in self._active:
            busy = ((current != 0) | fires).reshape(steps, batch * layer.size)
            self._active[layer.name].append(np.count_nonzero(busy, axis=1).astype(np.int64))
            self._spikes[layer.name].append(pack(fires[:, : self._keep_spikes]))
        if layer.name == self._network.output:
            # A sum of no terms or of products with 0 may be -0; + 0 makes it the 0 it stands for.
            self._outputs.append(value.reshape(steps, batch, layer.size) + np.float32(0))
        kept = current[:, : self._keep_currents]
        self._currents[layer.name].append(kept.reshape(*kept.shape[:2], layer.size) + np.float32(0))

    def trace(self) -> Trace:
        """All that was added."""
        fired = {self._network.input: np.count_nonzero(self._frames, axis=1).astype(np.int64)}
        return Trace(
            np.concatenate(self._outputs),
            {**fired, **{name: np.concatenate(counts) for name, counts in self._fired.items()}},
            {name: np.concatenate(bits) for name, bits in self._spikes.items()},
            {name: np.concatenate(values) for name, values in self._currents.items()},
            {name: np.concatenate(counts) for name, counts in self._active.items()},
        )


def samples_at_once(network: Network, steps: int) -> int:
    """How many samples of ``steps`` steps held at once fit into `MEMORY`, at most `MOST_SAMPLES`.

    Per layer and step four values are counted: current, membrane, spike and a temporary.
    """
    sizes = int(np.prod(network.input_shape)) + sum(layer.size for layer in network.layers)
    return max(1, min(MOST_SAMPLES, MEMORY // (16 * sizes * steps)))


def run_in_parts(
    network: Network,
    x: NDArray[Any],
    steps: int,
    record: Record | None,
    *,
    steps_held: int,
    run: Callable[[Values, bool, Recorder], None],
) -> Trace:
    """Let ``run`` fill a Recorder for as many samples of ``x`` at a time as fit into memory while
    the values of ``steps_held`` steps are held at once; the Trace of all.

    ``run`` gets the part's frames (T, B, *input_shape), whether all steps are the same frame, and
    the Recorder. ``x`` is (B, *input_shape) or (T, B, *input_shape); RequestError (E_INPUT).
    """
    record = record or Record()
    frames, still = frames_of(network, x.astype(np.float32, copy=False), steps)
    samples = frames.shape[1]
    spikes = samples if record.spikes is None else record.spikes
    traces = []
    rows = samples_at_once(network, steps_held)
    for start in range(0, samples, rows):
        part = frames[:, start : start + rows]
        recorder = Recorder(network, part, max(spikes - start, 0), max(record.currents - start, 0))
        run(part, still, recorder)
        traces.append(recorder.trace())
    trace = join(traces)
    if not record.currents:
        trace.currents.clear()
    return trace
