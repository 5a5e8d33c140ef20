"""Lava processes of our own: batches as one axis more, and a recorder that holds what it saw.

They stand in the initial file of a package with no other file, because Lava executes every file
beside one that defines a process. Arrays are handed over by name in `SHARED`: Lava forks its
processes, so each finds there what the worker put in before; a recorder writes into memory that is
mapped in all of them.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

Values = NDArray[Any]

SHARED: dict[str, Values] = {}
_EXACT = 2**24
"""Whole numbers below it are exact in float32."""


def mapped(name: str, shape: tuple[int, ...], kind: type) -> Values:
    """Zeros below a name in `SHARED` that all forks see, and write to."""
    count = math.prod(shape)
    room = mmap.mmap(-1, max(1, count * np.dtype(kind).itemsize))
    SHARED[name] = np.frombuffer(room, kind, count).reshape(shape)
    return SHARED[name]


class Feed(AbstractProcess):
    """Sends ``SHARED[name]``, (T or 1, samples, *shape), a batch at a time, from ``lag`` on."""

    def __init__(self, *, name: str, batch: int, lag: int, steps: int) -> None:
        super().__init__(stream=name, batch=batch, lag=lag, steps=steps)
        self.s_out = OutPort(shape=(batch, *SHARED[name].shape[2:]))


@implements(proc=Feed, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFeed(PyLoihiProcessModel):
    """`Feed` in Python."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.own = {key: proc_params[key] for key in ("stream", "batch", "lag", "steps")}

    def run_spk(self) -> None:
        """One time step."""
        own, values = self.own, SHARED[self.own["stream"]]
        group, step = divmod(self.time_step - 1 - own["lag"], own["steps"])
        sent = np.zeros((own["batch"], *values.shape[2:]), np.int32)
        if group >= 0:
            part = values[step % len(values), group * own["batch"] :][: own["batch"]]
            sent[: len(part)] = part
        self.s_out.send(sent)


class Record(AbstractProcess):
    """Keeps ``SHARED[name]``, (count, batch, ...), from time step ``first + 1`` on: the bits of
    spikes (batch, N), little-endian, where it holds bytes, else the values as they are."""

    def __init__(self, *, name: str, shape: tuple[int, ...], first: int) -> None:
        super().__init__(record=name, first=first)
        self.a_in = InPort(shape=shape)


@implements(proc=Record, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRecord(PyLoihiProcessModel):
    """`Record` in Python."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.record, self.first = proc_params["record"], proc_params["first"]

    def run_spk(self) -> None:
        """One time step."""
        seen, kept = self.a_in.recv(), SHARED[self.record]
        at = self.time_step - 1 - self.first
        if 0 <= at < len(kept):
            if kept.dtype == np.uint8:
                kept[at] = np.packbits(seen != 0, axis=-1, bitorder="little")
            else:
                kept[at] = seen


class Batched(AbstractProcess):
    """A connection over a batch: what Lava's Dense, DelayDense and Conv do, and clears itself.

    ``facts``: the fields of a connection (`snnpipe.network.wires`); ``weight``: its name in
    `SHARED`; ``steps`` of a sample. Shapes are (batch, W, H, C) or (batch, N).
    """

    def __init__(self, *, facts: dict[str, Any], weight: str, batch: int, steps: int) -> None:
        super().__init__(facts=facts, weight=weight, steps=steps)
        self.s_in = InPort(shape=(batch, *facts["enters"][::-1]))
        self.a_out = OutPort(shape=(batch, *facts["gives"][::-1]))


@implements(proc=Batched, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBatched(PyLoihiProcessModel):
    """`Batched` in Python: one matrix product a step, in floats that are exact here."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.facts, self.steps = proc_params["facts"], proc_params["steps"]
        weight = SHARED[proc_params["weight"]]
        rows = weight.reshape(len(weight), -1)
        small = not self.facts["graded"] and abs(rows.astype(np.int64)).sum(axis=1).max() < _EXACT
        self.kind = np.float32 if small else np.float64
        self.rows: Values = rows.astype(self.kind)
        if self.facts["kind"] == "conv":
            turned = weight[:, ::-1, ::-1].reshape(self.facts["groups"], -1, rows.shape[1])
            self.rows = turned.transpose(0, 2, 1).astype(self.kind)
            self.kernel = weight.shape[1:3]
        self.line: list[Values] = []

    def run_spk(self) -> None:
        """One time step."""
        if not self.line:
            self.line = [np.zeros(self.a_out.shape, np.int32)] * (1 + self.facts["delay"])
        self.a_out.send(self.line.pop(0))
        x = self.s_in.recv()
        x = (x if self.facts["graded"] else x != 0).astype(self.kind)
        exponent = self.facts["exponent"]
        total = self._convolved(x) if self.facts["kind"] == "conv" else x @ self.rows.T
        whole = total.astype(np.int64)
        whole = whole << exponent if exponent >= 0 else whole >> -exponent
        self.line.append(whole.astype(np.int32))
        if any((self.time_step - end) % self.steps == 0 for end in self.facts["cleared"]):
            self.line = [np.zeros_like(values) for values in self.line]

    def _convolved(self, x: Values) -> Values:
        (px, py), (sx, sy), (dx, dy) = (
            self.facts[name] for name in ("padding", "stride", "dilation")
        )
        kx, ky = self.kernel
        padded = np.pad(x, ((0, 0), (px, px), (py, py), (0, 0)))
        span = ((kx - 1) * dx + 1, (ky - 1) * dy + 1)
        seen = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
        seen = seen[:, ::sx, ::sy, :, ::dx, ::dy]  # (B, W', H', C, KX, KY)
        batch, width, height, channels = seen.shape[:4]
        groups = len(self.rows)
        parts = seen.reshape(batch, width, height, groups, channels // groups, kx, ky)
        columns = parts.transpose(3, 0, 1, 2, 5, 6, 4).reshape(groups, batch * width * height, -1)
        out = columns @ self.rows  # (groups, B*W'*H', Cout/groups)
        found: Values = out.transpose(1, 0, 2).reshape(batch, width, height, -1)
        return found
