"""What a run did (Trace), what the trained module did (Witness), and spikes in packed form."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..files import write_file
from .layers import Network, Shape
from .neurons import Spiking

Packed = NDArray[np.uint8]


def pack(spikes: NDArray[Any]) -> Packed:
    """Spikes (T, B, *shape), any type, non-zero fires, to bits (T, B, ceil(N/8)).

    Neurons in C, H, W order, little-endian within a byte.
    """
    flat = spikes.reshape(*spikes.shape[:2], int(np.prod(spikes.shape[2:])))
    return np.packbits(flat != 0, axis=-1, bitorder="little")


def unpack(packed: Packed, shape: Shape) -> NDArray[np.uint8]:
    """Bits (T, B, ceil(N/8)) to 0/1 (T, B, *shape)."""
    n = int(np.prod(shape))
    flat = np.unpackbits(packed, axis=-1, count=n, bitorder="little")
    return flat.reshape(*packed.shape[:2], *shape)


@dataclass(frozen=True, eq=False)
class Record:
    """What to keep of a batch besides outputs and counts: the spikes of the first ``spikes``
    samples (None: of all) and the currents of the first ``currents``."""

    spikes: int | None = None
    currents: int = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """What a run did.

    outputs: (T, B, K), float32, or int32 of an integer network, per step.
    fired: int64 (T, *shape) for the input and for every layer: in how many of the B samples the
        element was non-zero (fired) at that step.
    spikes: per spiking layer the bits (T, B', ceil(N/8)) of the first B' samples.
    currents: per layer (T, B'', N), float32 or int32 (in membrane units), of the first B''.
    active: per spiking layer int64 (T,), updates with a non-zero current or a spike, all samples;
        None where the runtime does not know them.
    overflows: of an integer network, per layer that could overflow in so many steps, how often
        one did, over all samples, steps and neurons: currents and sums of convolutions that
        wrapped, membranes that saturated, read-outs whose sum over the steps so far does not fit
        a membrane. Layers that cannot are left out; None where the runtime does not know.
    """

    outputs: NDArray[Any]
    fired: dict[str, NDArray[np.int64]]
    spikes: dict[str, Packed] = field(default_factory=dict)
    currents: dict[str, NDArray[Any]] = field(default_factory=dict)
    active: dict[str, NDArray[np.int64]] | None = None
    overflows: dict[str, int] | None = None

    @property
    def steps(self) -> int:
        """T."""
        return int(self.outputs.shape[0])

    @property
    def samples(self) -> int:
        """B."""
        return int(self.outputs.shape[1])

    def until(self, steps: int) -> Trace:
        """The first ``steps`` steps: what a shorter run would have done.

        When overflows happened is not kept: they are known where there was none, else None.
        """
        known = steps >= self.steps or not any((self.overflows or {}).values())
        return Trace(
            self.outputs[:steps],
            {name: count[:steps] for name, count in self.fired.items()},
            {name: bits[:steps] for name, bits in self.spikes.items()},
            {name: values[:steps] for name, values in self.currents.items()},
            None if self.active is None else {k: v[:steps] for k, v in self.active.items()},
            self.overflows if known else None,
        )


def join(traces: Sequence[Trace]) -> Trace:
    """Traces of batches to the trace of all their samples, in order."""
    first = traces[0]
    active = None
    if all(trace.active is not None for trace in traces):
        active = {
            name: np.sum([(t.active or {})[name] for t in traces], axis=0)
            for name in first.active or {}
        }
    overflows = None
    if all(trace.overflows is not None for trace in traces):
        overflows = {
            name: sum((t.overflows or {})[name] for t in traces) for name in first.overflows or {}
        }
    return Trace(
        np.concatenate([t.outputs for t in traces], axis=1),
        {name: np.sum([t.fired[name] for t in traces], axis=0) for name in first.fired},
        {k: np.concatenate([t.spikes[k] for t in traces], axis=1) for k in first.spikes},
        {k: np.concatenate([t.currents[k] for t in traces], axis=1) for k in first.currents},
        active,
        overflows,
    )


def predictions(outputs: NDArray[Any]) -> NDArray[np.int64]:
    """Class of each sample after each step: argmax of the running sum, (T, B, K) to (T, B).

    Sums, not means, are compared: no division rounds. Floats are summed in float64.
    """
    wide = np.int64 if outputs.dtype.kind == "i" else np.float64
    chosen: NDArray[np.int64] = np.argmax(np.cumsum(outputs, axis=0, dtype=wide), axis=-1)
    return chosen


UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),  # RuntimeError: said to be encrypted
)
"""What numpy and zipfile raise over a damaged .npy or .npz."""


@dataclass(frozen=True, eq=False)
class Witness:
    """Test inputs with what the trained module did on them in evaluation.

    inputs: (B, *stored_shape) of the network, levels ; labels: int64 (B,) ; indices: int64 (B,) in
    the test set ; outputs: float32 (T, B, K) ; spikes: bits (T, B, ceil(N/8)) per spiking layer.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    outputs: NDArray[np.float32]
    spikes: dict[str, Packed]

    def _arrays(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "labels": self.labels,
            "indices": self.indices,
            "outputs": self.outputs,
            **{f"spikes.{name}": bits for name, bits in self.spikes.items()},
        }

    def save(self, path: Path) -> None:
        """Write ``witness.npz``, whole or not at all."""

        def write(beside: Path) -> None:
            with beside.open("wb") as stream:
                np.savez_compressed(stream, **self._arrays())

        write_file(path, write)

    @staticmethod
    def load(path: Path) -> Witness:
        """Read ``witness.npz``; RequestError (E_WITNESS) when it is not one."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
            spikes = {k[7:]: v for k, v in arrays.items() if k.startswith("spikes.")}
            return Witness(
                arrays["inputs"], arrays["labels"], arrays["indices"], arrays["outputs"], spikes
            )
        except UNREADABLE as error:
            raise RequestError("E_WITNESS", f"{path}: not a readable witness ({error})") from error

    def check(self, network: Network) -> None:
        """Hold every array against a network; raises RequestError (E_WITNESS)."""
        steps, samples = network.contract.steps, self.labels.size
        expected: dict[str, tuple[str, Shape]] = {
            "inputs": ("iuf", (samples, *network.stored_shape)),
            "labels": ("iu", (samples,)),
            "indices": ("iu", (samples,)),
            "outputs": ("f", (steps, samples, network.layer(network.output).size)),
        }
        for layer in network.layers:
            if isinstance(layer.neuron, Spiking):
                packed = (steps, samples, -(-layer.size // 8))
                expected[f"spikes.{layer.name}"] = ("u", packed)
        arrays = self._arrays()
        for name, (kinds, shape) in expected.items():
            found = arrays.get(name)
            if (
                found is None
                or found.shape != shape
                or found.dtype.kind not in kinds
                or not samples
            ):
                what = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise RequestError(
                    "E_WITNESS",
                    f"the witness holds {what} as {name}; this network needs {list(shape)} with "
                    "one sample or more",
                )
