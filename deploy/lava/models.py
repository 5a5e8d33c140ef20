"""A network on Lava's ProcessModels: its session, what the models did, and their Trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.dynamics import WEIGHT_SHIFT, loihi_bias
from ...network.integer_sums import host_biases, neuron_bias
from ...network.layers import Layer, Network
from ...network.simulate import frames_of
from ...network.trace import Record, Trace, join, pack
from .lowering import Lowered, lower
from .process import Worker, worker_of
from .worker.frames import Arrays

Values = NDArray[Any]

DEADLINE = 180.0
"""Seconds without a sign of life from the models, which give one a second where a step is short."""
_ANSWER = 2**26
"""Bytes that one answer may take, roughly."""
_MOST_SAMPLES = 256


@dataclass(frozen=True, eq=False)
class Did:
    """What a layer did, each (T, B, *shape): its current in membrane units, bias included, and
    what it emits; of a neuron also its state after the step, ``u`` and ``v``."""

    current: Values
    value: Values
    u: Values | None = None
    v: Values | None = None


@dataclass(eq=False)
class ModelsSession:
    """A network in Lava's models.

    ``python``: the private interpreter; a worker starts with the first run and ends with the
    session. Or ``worker``: one that somebody else closes.
    """

    network: Network
    python: Path | None = None
    worker: Worker | None = None
    lowered: Lowered = field(init=False)

    def __post_init__(self) -> None:
        self.lowered = lower(self.network)

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames float32 (B, *input_shape), shown at every step, or (T, B, *input_shape).

        Raises RequestError (E_INPUT) for a wrong shape, and where no host layer takes them for
        values that are not whole or not within the contract's levels; CouldNotRunError (E_LAVA,
        E_DEADLINE) when Lava fails.
        """
        record = record or Record()
        traces, start = [], 0
        for frames, did in self.watched(x, steps):
            traces.append(self.trace_of(frames, did, record, start))
            start += frames.shape[1]
        return join(traces)

    def watched(self, x: Values, steps: int) -> Iterator[tuple[Values, dict[str, Did]]]:
        """As `run`: for one part of the samples after the other its frames (T, B, *input_shape)
        and what every layer did."""
        frames, still = frames_of(self.network, x, steps)
        neurons = sum(layer.size for layer in self.network.layers)
        rows = max(1, min(_MOST_SAMPLES, _ANSWER // (9 * neurons * steps)))
        for start in range(0, frames.shape[1], rows):
            part = frames[:, start : start + rows]
            yield part, self._part(part[:1] if still else part, steps)

    def trace_of(
        self, frames: Values, did: dict[str, Did], record: Record, start: int = 0
    ) -> Trace:
        """The Trace of a part, whose first sample is number ``start`` of those recorded."""
        samples = frames.shape[1]
        spikes = samples if record.spikes is None else max(record.spikes - start, 0)
        currents = max(record.currents - start, 0)
        fired = {self.network.input: np.count_nonzero(frames, axis=1).astype(np.int64)}
        packed, active, kept = {}, {}, {}
        for layer in self.network.layers:
            one = did[layer.name]
            fired[layer.name] = np.count_nonzero(one.value, axis=1).astype(np.int64)
            if record.currents:
                flat = one.current[:, :currents].reshape(len(frames), -1, layer.size)
                kept[layer.name] = flat.astype(np.int32)
            if one.u is not None:
                packed[layer.name] = pack(one.value[:, :spikes])
                busy = ((one.current != 0) | one.value).reshape(len(frames), -1)
                active[layer.name] = np.count_nonzero(busy, axis=1).astype(np.int64)
        out = did[self.network.output].value.reshape(len(frames), samples, -1)
        return Trace(out.astype(np.int32), fired, packed, kept, active)

    def _part(self, shown: Values, steps: int) -> dict[str, Did]:
        host: Arrays = {}
        for n, layer in self.lowered.injected:
            mantissas = host_biases(self.network, layer, shown) >> self._exponent(layer)
            host[f"{n}.bias_mant"] = mantissas.astype(np.int16)
        arrays = {
            **self.lowered.arrays,
            **host,
            "frames": self._whole(shown),
        }
        _, found = worker_of(self).ask({**self.lowered.request, "steps": steps}, arrays, DEADLINE)
        return {
            layer.name: self._did(n, layer, arrays, found)
            for n, layer in enumerate(self.network.layers)
        }

    def _whole(self, shown: Values) -> NDArray[np.int32]:
        """The input as Lava's messages carry it; nobody reads it where the host computes."""
        contract = self.network.contract
        fed = {s["source"] for plan in self.lowered.request["layers"] for s in plan["synapses"]}
        if self.network.input not in fed:
            return np.zeros(shown.shape, np.int32)
        largest = contract.input_scale * contract.input_levels
        if not (shown == np.rint(shown)).all() or shown.min() < 0 or shown.max() > largest:
            raise RequestError(
                "E_INPUT",
                "an integer network without a host layer takes whole numbers within its contract, "
                f"0 to {largest:g}; found {shown.min():g} to {shown.max():g}",
            )
        return shown.astype(np.int32)

    def _did(self, n: int, layer: Layer, arrays: Arrays, found: Arrays) -> Did:
        exponent = self._exponent(layer)
        if f"{n}.sum" in found:
            if f"{n}.bias_mant" in arrays:
                bias = loihi_bias(arrays[f"{n}.bias_mant"].astype(np.int64), exponent)
            else:
                bias = neuron_bias(self.network, layer)
            total = (found[f"{n}.sum"].astype(np.int64) << WEIGHT_SHIFT) + bias
            return Did(total, total)
        bias = loihi_bias(arrays[f"{n}.bias_mant"].astype(np.int64), exponent)
        u, v = found[f"{n}.u"], found[f"{n}.v"]
        return Did(u + bias, found[f"{n}.s"], u, v)

    def _exponent(self, layer: Layer) -> int:
        exponents: Any = getattr(self.network.contract.arithmetic, "bias_exponents", {})
        return int(exponents.get(layer.name, 0))
