"""Loihi's integers on the C++ engine: fixed-point emulation, no silicon.

The step is Lava 0.10's `PyLifModelBitAcc` as `network.dynamics` defines it: 24-bit current,
saturating membrane, decays rounded toward zero. Results are a chip's only as far as that model is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import RequestError
from ...network.contract import Integer
from ...network.layers import Network
from ...network.support import Table
from ..protocol import Session
from .event import INTEGERS, EventRuntime


@dataclass(frozen=True)
class LoihiRuntime:
    """The event engine, for networks in Loihi's integers only."""

    name: str
    target: str
    table: Table

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED) for a network in floats and what the table refuses."""
        arithmetic = network.contract.arithmetic
        if not isinstance(arithmetic, Integer):
            raise RequestError(
                "E_UNSUPPORTED",
                f"runtime '{self.name}' runs integer networks, this one's arithmetic is "
                f"{arithmetic.kind}; quantise it first",
            )
        EventRuntime(self.name, self.target, self.table).check(network)

    def open(self, network: Network, folder: Path | None) -> Session:
        """Hand an integer network to the engine.

        Raises what `check` raises, CouldNotRunError (E_MISSING) when the extension is not built.
        """
        self.check(network)
        return EventRuntime(self.name, self.target, self.table).open(network, folder)


PLUGIN = LoihiRuntime("loihi", "lava", INTEGERS)
