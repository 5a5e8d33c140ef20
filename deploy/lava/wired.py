"""A network in Lava's real runtime, each process its own: its session, and what it did as a Trace.

Program ``standard`` sends samples one after another through Lava's published processes: the
strongest witness, at some ten samples a second. Program ``batched`` has our own connections, with
many samples side by side, between Lava's own neurons: for whole data sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.check_integer import TABLE
from ...network.dynamics import WEIGHT_SHIFT
from ...network.layers import Network
from ...network.simulate import frames_of
from ...network.support import Table
from ...network.trace import Record, Trace, join, unpack
from ...network.wires import Wiring
from ...network.wiring import streams, wiring
from .environment import find_environment
from .process import Worker, worker_of

Values = NDArray[Any]
Program = Literal["standard", "batched"]
Config = Literal["Loihi2SimCfg", "Loihi2HwCfg"]

START_SECONDS = 60.0
STEP_SECONDS = 0.02
"""For the deadline: of one process, sample and time step, on a busy machine."""
BATCH = 128
"""Samples side by side: with more, Lava takes seconds to stop."""
MEMORY = 2**27
"""Bytes that the streams of one request may take, roughly."""
MOST_SAMPLES = {"standard": 256, "batched": 4096}
"""Samples of one request, whose processes are started once."""


@dataclass(eq=False)
class WiredSession:
    """A network wired for Lava's runtime.

    ``python``: the private interpreter; a worker starts with the first run and ends with the
    session. Or ``worker``: one that somebody else closes. ``config`` is Lava's run configuration:
    `Loihi2SimCfg`, or `Loihi2HwCfg` where there is a Loihi 2 (passed on as it is: never tried
    here). ``seconds``: what the last run took, by part.
    """

    network: Network
    program: Program
    python: Path | None = None
    worker: Worker | None = None
    config: Config = "Loihi2SimCfg"
    wired: Wiring = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wired = wiring(self.network)

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames float32 (B, *input_shape), shown at every step, or (T, B, *input_shape).

        The Trace has no currents and no active updates: Lava's processes tell spikes and sums.
        Raises RequestError (E_STEPS) for more steps than the contract's, (E_INPUT) for a wrong
        shape or values that Lava does not take, CouldNotRunError (E_LAVA, E_DEADLINE) when Lava
        fails.
        """
        record = record or Record()
        if steps > self.network.contract.steps:
            raise RequestError(
                "E_STEPS",
                f"Lava's runtime was asked for {steps} steps; that nothing overflows is known of "
                f"the contract's {self.network.contract.steps}",
            )
        frames, still = frames_of(self.network, x.astype(np.float32, copy=False), steps)
        samples = frames.shape[1]
        kept = samples if record.spikes is None else record.spikes
        self.seconds = {}
        traces, rows = [], self._rows(steps, still)
        for start in range(0, samples, rows):
            part = frames[:, start : start + rows]
            found = self._ask(part, steps, still)
            traces.append(self._trace(part, found, max(kept - start, 0)))
        return join(traces)

    def _rows(self, steps: int, still: bool) -> int:
        """Samples of one request."""
        values = sum(int(np.prod(stream.shape)) for stream in self.wired.streams)
        constant = still and self.program == "batched"
        size = 4 * values * (1 if constant else steps)
        return max(1, min(MOST_SAMPLES[self.program], MEMORY // size))

    def _ask(self, frames: Values, steps: int, still: bool) -> dict[str, Values]:
        plan, arrays = self.wired.plan()
        delayed = any(stream.delay for stream in self.wired.streams)
        shown = frames[:1] if still and not delayed else frames
        sent = streams(self.network, self.wired, shown)
        samples = frames.shape[1]
        batch = min(BATCH, samples) if self.program == "batched" else 1
        request = {
            "program": self.program,
            "plan": plan,
            "steps": steps,
            "samples": samples,
            "batch": batch,
            "config": self.config,
        }
        units = len(self.wired.populations) + len(self.wired.connections)
        deadline = START_SECONDS + STEP_SECONDS * units * batch * 4
        arrays |= {f"stream.{name}": values for name, values in sent.items()}
        facts, found = worker_of(self).ask(request, arrays, deadline)
        for name, value in facts["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0) + value
        return found

    def _trace(self, frames: Values, found: dict[str, Values], kept: int) -> Trace:
        fired = {self.network.input: np.count_nonzero(frames, axis=1).astype(np.int64)}
        spikes: dict[str, NDArray[np.uint8]] = {}
        outputs: Values | None = None
        for layer in self.network.layers:
            if self.wired.readout is not None and layer.name == self.wired.readout.name:
                bias = self.wired.readout.bias.reshape(-1)
                total = (found["sums"].astype(np.int64) << WEIGHT_SHIFT) + bias
                values: Values = total.astype(np.int32)
                outputs = values
            else:
                bits = found[f"spikes.{layer.name}"]
                spikes[layer.name] = bits[:, :kept]
                values = unpack(bits, (layer.size,))
                if layer.name == self.network.output:
                    outputs = values.astype(np.int32)
            counted = np.count_nonzero(values, axis=1).astype(np.int64)
            fired[layer.name] = counted.reshape(-1, *layer.shape)
        if outputs is None:
            raise TypeError(f"output '{self.network.output}' is no layer")
        return Trace(outputs, fired, spikes)


@dataclass(frozen=True)
class WiredRuntime:
    """Integer networks in Lava's real runtime, by one of its programs."""

    name: str
    program: Program
    target: str = "lava"
    table: Table = field(default_factory=lambda: TABLE)

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED, E_RANGE) for what Lava cannot express."""
        wiring(network)

    def open(self, network: Network, folder: Path | None) -> WiredSession:  # noqa: ARG002 - the network was read from the artefact
        """Wire an integer network.

        Raises what `check` raises, CouldNotRunError (E_MISSING) where Lava is not set up.
        """
        return WiredSession(network, self.program, find_environment().interpreter)
