"""How long a run takes on a chip, and what the chip's static power costs meanwhile.

A step is at least as long as the one measured, and as the barrier and the busiest core need: its
synaptic operations and its neuron updates one after the other. The whole chip leaks while it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..network.layers import Network
from .chip import Chip, Price
from .counts import FirstLayer
from .pricing import Cost, prices_used, weakest
from .report import StaticTerm

Bounds = tuple[Fraction, Fraction, Fraction]
"""Value, low, high."""
_PJ_PER_MW_US = 1000
_NS_PER_US = 1000


@dataclass(frozen=True)
class StepTime:
    """Mean length of a step in microseconds, and the prices it stands on."""

    us: Bounds
    prices: tuple[Price, ...]


def depths(network: Network, first_layer: FirstLayer) -> tuple[int, bool]:
    """(steps a spike needs from the first layer to the last, whether paths differ in length).

    Each layer of synapses costs one step; currents of a graded input cost none. A layer whose
    sources differ in depth needs relay neurons on the shorter path.
    """
    depth: dict[str, int] = {}
    uneven = False
    for layer in network.layers:
        arrivals = {depth[s.source] + 1 for s in layer.synapses if s.source in depth}
        if first_layer == "none" and any(s.source == network.input for s in layer.synapses):
            arrivals.add(1)
        uneven = uneven or len(arrivals) > 1
        depth[layer.name] = max(arrivals, default=0)
    return depth[network.output], uneven


def _bounds(price: Price) -> Bounds:
    return Fraction(price.value), Fraction(price.low), Fraction(price.high)


def step_time(
    chip: Chip,
    network: Network,
    load: Mapping[str, NDArray[np.int64]],
    samples: int,
    unmapped: Collection[str],
) -> StepTime | None:
    """Mean step of a run, None when the chip file has no ``step_us``.

    ``load``: synaptic operations per layer and step over all ``samples``, int64 (T,). Layers in
    ``unmapped`` would be cut over several cores: they are left out.
    """
    measured = chip.time.get("step_us")
    if measured is None:
        return None
    plain = StepTime(_bounds(measured), (measured,))
    parts = [chip.time.get(key) for key in ("barrier_ns", "synop_ns", "update_ns")]
    barrier, synop, update = parts
    layers = [layer for layer in network.layers if layer.name not in unmapped]
    if barrier is None or synop is None or update is None or not layers:
        return plain
    steps = len(load[layers[0].name])
    modelled: list[Fraction] = []
    for b, s, u in zip(_bounds(barrier), _bounds(synop), _bounds(update), strict=True):
        total = sum(
            max(
                Fraction(int(load[layer.name][t]), samples) * s + layer.size * u for layer in layers
            )
            for t in range(steps)
        )
        modelled.append((b + Fraction(total) / steps) / _NS_PER_US)
    value, low, high = (max(m, n) for m, n in zip(plain.us, modelled, strict=True))
    if value == plain.us[0]:
        return StepTime((value, low, high), plain.prices)
    return StepTime((value, low, high), (barrier, synop, update))


def static_terms(
    chip: Chip,
    time: StepTime | None,
    throttled_us: int,
    modes: Mapping[str, int],
    samples: int,
    chips: int,
    label: str,
) -> list[StaticTerm]:
    """Static energy of whole chips, free running and throttled, for each mode (name to steps).

    None of it without a published static power.
    """
    power = chip.power.get("static_chip_mw")
    if power is None:
        return []
    floor = Fraction(throttled_us)
    clocks: list[tuple[str, Bounds, tuple[Price, ...]]] = []
    if time is not None:
        clocks.append(("free", time.us, time.prices))
    slow = time.us if time is not None else (floor, floor, floor)
    slowed = (max(floor, slow[0]), max(floor, slow[1]), max(floor, slow[2]))
    clocks.append(("throttled", slowed, time.prices if time and slow[0] > floor else ()))
    terms = []
    for mode, steps in modes.items():
        for clock, us, prices in clocks:
            scale = _PJ_PER_MW_US * chips * steps * samples
            value, low, high = (scale * p * u for p, u in zip(_bounds(power), us, strict=True))
            used = (power, *prices)
            total = Cost(value, value, low, high).total(samples, weakest(used), label)
            length = (float(us[0]), float(us[1]), float(us[2]))
            terms.append(
                StaticTerm(mode, clock, steps, length, chips, prices_used(chip, used), total)
            )
    return terms
