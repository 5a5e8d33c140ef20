"""Event-driven C++ engine on the CPU: the work follows the spikes; float32 or Loihi integers.

Every current is summed in one fixed order, (ky, kx, channel) and then synapse by synapse, without
fused products, so that a run gives the same bits on every machine and at every batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network import check_integer
from ...network.contract import Integer
from ...network.integer_sums import host_biases
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
)
from ...network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Sum, Threshold
from ...network.overflow import can_overflow, whole_run
from ...network.simulate import frames_of
from ...network.support import Recurrent, Table, refuse_unsupported
from ...network.trace import Record, Trace
from ..engine import load
from ..recording import MOST_SAMPLES
from ._lowering import Lowering

if TYPE_CHECKING:
    from ..engine._engine import FloatBuilder, FloatPlan, IntegerBuilder, IntegerPlan

Values = NDArray[Any]


@dataclass(frozen=True, eq=False)
class EventSession:
    """A network handed to the engine, ready to run batches.

    ``counted``: per number of steps the layers that are not proven to stay in range.
    """

    network: Network
    plan: FloatPlan | IntegerPlan
    groups: dict[str, int]
    host: tuple[Layer, ...]
    relays: dict[int, str] = field(default_factory=dict)
    counted: dict[int, frozenset[str]] = field(default_factory=dict)

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames float32 (B, *input_shape), shown at every step, or (T, B, *input_shape).

        Raises RequestError (E_INPUT) for a wrong shape or dtype, values that are not finite, and,
        on integers without a host layer, values that are not whole or beyond the contract's.
        """
        record = record or Record()
        if x.dtype != np.float32:
            raise RequestError("E_INPUT", f"the input has dtype {x.dtype}; expected float32")
        frames, static = frames_of(self.network, x, steps)
        shown = frames[:1] if static else frames
        inputs = [self._flat(shown, static)] if self.network.input in self.groups else []
        inputs += [self._host_current(layer, shown, steps) for layer in self.host]
        counted = self._counted(steps)
        try:
            outputs, fired, spikes, currents, _, active, lost = self.plan.run(
                inputs,
                steps,
                spikes=record.spikes,
                currents=record.currents,
                overflows=list(counted),
            )
        except ValueError as error:
            raise RequestError("E_INPUT", f"the event engine refuses the input: {error}") from error
        seen = np.count_nonzero(shown, axis=1).astype(np.int64)
        every = {self.network.input: np.repeat(seen, steps // len(seen), axis=0)}
        named = {layer.name: self.groups[layer.name] for layer in self.network.layers}
        for layer in self.network.layers:
            every[layer.name] = fired[named[layer.name]].reshape(steps, *layer.shape)
        return Trace(
            outputs,
            every,
            {name: spikes[group] for name, group in named.items() if group in spikes},
            {name: currents[group] for name, group in named.items() if group in currents},
            {name: active[group] for name, group in named.items() if group in active},
            self._overflows(counted, lost, outputs),
        )

    def _counted(self, steps: int) -> dict[int, str]:
        """The groups whose overflows are counted in so many steps, and the layer of each."""
        if steps not in self.counted:
            self.counted[steps] = can_overflow(self.network, steps)
        layers = {group: name for name, group in self.groups.items()} | self.relays
        return {group: name for group, name in layers.items() if name in self.counted[steps]}

    def _overflows(
        self, counted: dict[int, str], lost: dict[int, int], outputs: Values
    ) -> dict[str, int] | None:
        if not isinstance(self.network.contract.arithmetic, Integer):
            return None
        found = dict.fromkeys(counted.values(), 0)
        for group, name in counted.items():
            found[name] += lost[group]
        return whole_run(self.network, found, outputs)

    def _flat(self, shown: Values, static: bool) -> Values:
        """The network's input as the plan takes it: (B, N) or (T, B, N)."""
        if isinstance(self.network.contract.arithmetic, Integer):
            if not (shown == np.rint(shown)).all() or abs(shown).max(initial=0) >= 2**24:
                raise RequestError(
                    "E_INPUT",
                    "an integer network without a host layer takes whole numbers as input",
                )
            shown = shown.astype(np.int32)
        flat = np.ascontiguousarray(shown.reshape(*shown.shape[:2], -1))
        return flat[0] if static else flat

    def _host_current(self, layer: Layer, shown: Values, steps: int) -> NDArray[np.int32]:
        """The current that the host writes as biases, membrane units: (B, N) where it is the same
        at every step, else (T, B, N)."""
        if not np.isfinite(shown).all():
            raise RequestError("E_INPUT", "the input holds a value that is not finite")
        operations = (operation for synapse in layer.synapses for operation in synapse.operations)
        if any(isinstance(operation, Delay) for operation in operations):
            shown = np.broadcast_to(shown, (steps, *shown.shape[1:]))
        length, samples = shown.shape[:2]
        written = np.empty((length, samples, layer.size), np.int32)
        at_once = max(1, MOST_SAMPLES // length)
        for start in range(0, samples, at_once):
            part = shown[:, start : start + at_once]
            bias = host_biases(self.network, layer, part)
            written[:, start : start + at_once] = bias.reshape(*part.shape[:2], -1)
        return written if length == steps else written[0]


TABLE: Table = dict.fromkeys(
    (
        *(Dense, Conv, Conv1d, Scale, SumPool, AvgPool, Flatten, Delay, Recurrent),
        *(LIF, IF, LI, CubaLIF, CubaLI, Threshold, Sum),
    )
)
INTEGERS: Table = {**check_integer.TABLE, AvgPool: "integers have no mean; use a sum pool"}
"""What the engine's integers do."""


@dataclass(frozen=True)
class EventRuntime:
    """The engine as a runtime; it opens the network itself, whatever its arithmetic."""

    name: str
    target: str
    table: Table

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED) for what the table of its arithmetic refuses."""
        integer = isinstance(network.contract.arithmetic, Integer)
        table = INTEGERS if integer else self.table
        refuse_unsupported(network, f"runtime '{self.name}' cannot run", table)

    def open(self, network: Network, folder: Path | None) -> EventSession:  # noqa: ARG002 - the network was read from the artefact
        """Hand a network to the engine.

        Raises RequestError (E_UNSUPPORTED, E_SHAPE, E_RANGE) naming layer and reason,
        CouldNotRunError (E_MISSING) when the extension is not built.
        """
        self.check(network)
        integer = isinstance(network.contract.arithmetic, Integer)
        engine = load()
        builder: FloatBuilder | IntegerBuilder = (
            engine.IntegerBuilder() if integer else engine.FloatBuilder()
        )
        lowering = Lowering(network, builder, self.name)
        try:
            lowering.lower()
            output = lowering.groups[network.layer(network.output).name]
            plan = builder.build(output, loops=lowering.loops)
        except ValueError as error:
            raise RequestError("E_ENGINE", f"the event engine refuses it: {error}") from error
        host = tuple(lowering.injected)
        return EventSession(network, plan, lowering.groups, host, lowering.relays)


PLUGIN = EventRuntime("event", "nir", TABLE)
