"""How long a run takes on a chip, and what the chip's static power costs meanwhile.

A step is at least as long as the one measured, and as the barrier and the busiest core need: its
synaptic operations and its neuron updates one after the other. The whole chip leaks while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .chip import Chip, Price
from .mapping import Mapping as CoreMapping
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


def _bounds(price: Price) -> Bounds:
    return Fraction(price.value), Fraction(price.low), Fraction(price.high)


def step_time(
    chip: Chip, mapping: CoreMapping, load: Mapping[str, NDArray[np.int64]], samples: int
) -> StepTime | None:
    """Mean step of a run, None when the chip file has no ``step_us``.

    ``load``: synaptic operations per layer and step over all ``samples``, int64 (T,); a layer's
    cores are taken to share them evenly. Layers that do not fit are left out.
    """
    measured = chip.time.get("step_us")
    if measured is None:
        return None
    plain = StepTime(_bounds(measured), (measured,))
    parts = [chip.time.get(key) for key in ("barrier_ns", "synop_ns", "update_ns")]
    barrier, synop, update = parts
    unmapped = {excess.layer for excess in mapping.unmapped}
    layers = [layer for layer in mapping.layers() if layer.layer not in unmapped]
    if barrier is None or synop is None or update is None or not layers:
        return plain
    steps = len(load[layers[0].layer])
    busiest = [-(-layer.neurons // layer.cores) for layer in layers]
    modelled: list[Fraction] = []
    for b, s, u in zip(_bounds(barrier), _bounds(synop), _bounds(update), strict=True):
        total = sum(
            max(
                Fraction(int(load[layer.layer][t]), samples * layer.cores) * s + neurons * u
                for layer, neurons in zip(layers, busiest, strict=True)
            )
            for t in range(steps)
        )
        modelled.append((b + Fraction(total) / steps) / _NS_PER_US)
    value, low, high = (max(m, n) for m, n in zip(plain.us, modelled, strict=True))
    if value == plain.us[0]:
        return StepTime((value, low, high), plain.prices)
    return StepTime((value, low, high), (barrier, synop, update))


def static_power(chip: Chip) -> tuple[tuple[Price, ...], Bounds]:
    """Power of a chip that does nothing, mW, and the prices it stands on: what leaks and, where it
    is published, what the clock draws. No prices without a published static power.
    """
    leak = chip.power.get("static_chip_mw")
    rate, clock = chip.power.get("clock_mw_per_mhz"), chip.time.get("clock_mhz")
    if leak is None:
        return (), (Fraction(0), Fraction(0), Fraction(0))
    if rate is None or clock is None:
        return (leak,), _bounds(leak)
    value, low, high = (
        a + b * c for a, b, c in zip(_bounds(leak), _bounds(rate), _bounds(clock), strict=True)
    )
    return (leak, rate, clock), (value, low, high)


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
    power, drawn = static_power(chip)
    if not power:
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
            value, low, high = (scale * p * u for p, u in zip(drawn, us, strict=True))
            used = (*power, *prices)
            total = Cost(value, value, low, high).total(samples, weakest(used), label)
            length = (float(us[0]), float(us[1]), float(us[2]))
            terms.append(
                StaticTerm(mode, clock, steps, length, chips, prices_used(chip, used), total)
            )
    return terms
