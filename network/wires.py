"""Lava's processes as data: what `wiring` makes of a network, what programs build, what is written.

Shapes are the network's, (C, H, W); Lava holds all of them reversed, (W, H, C), and weights are
kept here as Lava takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .layers import Pair, Shape

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """What the host sends: the input, or the current of ``layer`` in weight units.

    A sample's first values leave at time step ``lag + 1``; in each sample they come ``delay`` steps
    late, after zeros.
    """

    name: str
    shape: Shape
    lag: int
    delay: int = 0
    layer: str = ""


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one process. ``du``, ``dv``, ``vth``, ``bias_mant``: int64, of ``shape`` or one
    number; a sample's first step is time step ``depth + 1``; a ``relay`` is no layer."""

    name: str
    shape: Shape
    depth: int
    du: Ints
    dv: Ints
    vth: Ints
    bias_mant: Ints
    bias_exp: int = 0
    relay: bool = False


@dataclass(frozen=True, eq=False)
class Connection:
    """One linear map, from a stream or a population to a population or the read-out.

    ``weight`` as Lava takes it: (out, in), or (Cout, KW, KH, Cin/groups) with both axes of the
    kernel turned round; ``enters`` and ``gives`` are the map's own shapes, of as many values as
    its ends'; pairs are (x, y). It takes ``1 + delay`` time steps. ``cleared``: its buffer is
    emptied at the end of every time step that is one of these numbers modulo a sample's steps.
    """

    source: str
    target: str
    kind: Literal["dense", "conv"]
    weight: Ints
    enters: Shape
    gives: Shape
    graded: bool = False
    exponent: int = 0
    delay: int = 0
    cleared: tuple[int, ...] = ()
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Readout:
    """A sum that the host reads: ``(sum << 6) + bias``, ``bias`` (*shape) in membrane units."""

    name: str
    shape: Shape
    depth: int
    bias: Ints


@dataclass(frozen=True, eq=False)
class Wiring:
    """All processes. ``output``: the read-out's or a population's name."""

    streams: tuple[Stream, ...]
    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    readout: Readout | None
    output: str

    @property
    def depth(self) -> int:
        """Time steps that the last layer works behind the input."""
        ends = [p.depth for p in self.populations if not p.relay]
        return max([*ends, self.readout.depth] if self.readout else ends)

    def plan(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Plain values for JSON, and the arrays for an npz, named ``<number>.<field>``.

        The arrays of neurons have Lava's order of axes, (W, H, C), as the weights have it.
        """
        arrays: dict[str, NDArray[Any]] = {}
        populations = []
        for n, p in enumerate(self.populations):
            for name in ("du", "dv", "vth", "bias_mant"):
                arrays[f"population{n}.{name}"] = getattr(p, name).T.astype(np.int32)
            facts = {k: getattr(p, k) for k in ("name", "shape", "depth", "bias_exp", "relay")}
            populations.append(facts)
        connections = []
        for n, c in enumerate(self.connections):
            arrays[f"connection{n}.weight"] = c.weight.astype(np.int16)
            connections.append({k: v for k, v in vars(c).items() if k != "weight"})
        readout = None
        if self.readout is not None:
            arrays["readout.bias"] = self.readout.bias
            readout = {k: getattr(self.readout, k) for k in ("name", "shape", "depth")}
        return {
            "streams": [vars(stream) for stream in self.streams],
            "populations": populations,
            "connections": connections,
            "readout": readout,
            "output": self.output,
            "depth": self.depth,
        }, arrays
