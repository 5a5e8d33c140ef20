"""Layers onto the cores of a chip, by our own partitioner, and the way of every spike.

A layer is cut into channel, row and column ranges, the fewest that fit a core, from the last layer
to the first, so that where a spike goes is known when its layer is cut. Synapse memory follows the
public block format of Loihi's lists where the chip's file has one. An estimate: no compiler of a
chip's maker was asked, and none need agree.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..network.contract import Integer
from ..network.fanout import is_graded
from ..network.layers import Network
from .chip import Chip, Limits
from .chip_file import load_chip
from .cutting import Cut, Excess, cut_layer, excesses
from .demand import CORE_LIMITS, Storage, Uncut, needs, uncut
from .lowering import Lowered, lowered
from .placement import Places, place_cores
from .reach import Counts, image, tables
from .routes import Routes, routes_of, traffic
from .whole import on_one_core, on_unequal_cores

DEFAULT_WEIGHT_BITS = 8
"""Width that weights are taken to have when the network is not in integers."""
Span = tuple[int, int]


@dataclass(frozen=True)
class CoreUse:
    """What one core holds: a tile of a layer (first and last-plus-one channel, row and column),
    its neurons, the sources that reach it, the messages its neurons send when all fire once, bits
    of synapse memory (None: not known), distinct thresholds. ``binding``: the limit it is nearest
    to, and how near; "" where none is published. ``place``: chip, column and row of its tile.
    """

    layer: str
    channels: Span
    rows: Span
    columns: Span
    neurons: int
    axons_in: int
    axons_out: int
    synapse_bits: int | None
    thresholds: int
    binding: str
    use: float
    place: tuple[int, int, int]


@dataclass(frozen=True)
class LayerUse:
    """A layer's cores together: how many, its neurons, and the most that one core holds."""

    layer: str
    cores: int
    neurons: int
    axons_in: int
    axons_out: int
    synapse_bits: int | None
    thresholds: int
    binding: str
    use: float


@dataclass(frozen=True, eq=False)
class Mapping:
    """A network on a chip. ``low``: the network as the chip runs it. ``unmapped``: limits that are
    broken, so that core counts and messages are lower bounds. ``unchecked``: limits the chip's file
    does not have. ``mixed``: layers with synapses that mix axes, taken as all to all.
    """

    low: Lowered
    cores: tuple[CoreUse, ...]
    unmapped: tuple[Excess, ...]
    unchecked: tuple[str, ...]
    weight_bits: int
    chips: int
    routes: Table[str, Routes]
    hops: bool
    mixed: tuple[str, ...] = ()

    def layers(self) -> tuple[LayerUse, ...]:
        """The cores by layer, in the order of the network."""
        names = dict.fromkeys(core.layer for core in self.cores)
        return tuple(_together(name, [c for c in self.cores if c.layer == name]) for name in names)

    def picture(self, chip: Chip) -> dict[str, Any]:
        """Plain values to draw: the chip's grid, every core with its tile, and every limit."""
        limits = chip.limits
        return {
            "chip": chip.name,
            "made_by": "our own partitioner: an estimate",
            "chips": self.chips,
            "cores_per_chip": limits.cores,
            "grid": list(limits.grid.size) if limits.grid else None,
            "grid_assumed": limits.grid.assumed if limits.grid else None,
            "limits": {name: getattr(limits, name) for name in CORE_LIMITS},
            "cores": [asdict(core) for core in self.cores],
            "unmapped": [{**asdict(one), "sentence": one.sentence()} for one in self.unmapped],
            "unchecked": list(self.unchecked),
        }


def _together(name: str, cores: Sequence[CoreUse]) -> LayerUse:
    fullest = max(cores, key=lambda core: core.use)
    bits = [core.synapse_bits for core in cores if core.synapse_bits is not None]
    return LayerUse(
        name,
        len(cores),
        sum(core.neurons for core in cores),
        max(core.axons_in for core in cores),
        max(core.axons_out for core in cores),
        max(bits, default=None),
        max(core.thresholds for core in cores),
        fullest.binding,
        fullest.use,
    )


def _chip_wide(network: Network, limits: Limits, bits: int) -> list[Excess]:
    """Limits that no cut can help: width of weights, delays, values that are not spikes."""
    broken = []
    for layer in network.layers:
        if limits.weight_bits is not None and bits > limits.weight_bits[1]:
            broken.append(Excess(layer.name, "weight_bits", bits, limits.weight_bits[1]))
        delay = max((synapse.delay for synapse in layer.synapses), default=0)
        if limits.delay_max is not None and delay > limits.delay_max:
            broken.append(Excess(layer.name, "delay_max", delay, limits.delay_max))
        sends = any(s.source == layer.name for other in network.layers for s in other.synapses)
        if limits.graded_bits == 0 and sends and is_graded(network, layer.name):
            broken.append(Excess(layer.name, "graded_bits", 1, 0))
    return broken


def weight_width(network: Network, chip: Chip) -> int:
    """Bits a weight is stored in: the network's, or 8 (fewer where the chip has fewer)."""
    arithmetic, allowed = network.contract.arithmetic, chip.limits.weight_bits
    if isinstance(arithmetic, Integer):
        return arithmetic.weight_bits
    return min(DEFAULT_WEIGHT_BITS, allowed[1]) if allowed else DEFAULT_WEIGHT_BITS


def _targets(uncut_layers: Table[str, Uncut], cut: Table[str, Cut], name: str,
             size: tuple[int, ...]) -> Counts:  # fmt: skip
    """To how many of the cores that are known so far one spike of each neuron goes."""
    total = np.zeros(size, np.int64)
    for target, done in cut.items():
        parts = uncut_layers[target].reaches.get(name)
        if parts:
            for sign, axes in tables(parts, done.tiles):
                sums = (table.sum(axis=1) for table in axes)
                total = total + sign * np.einsum("a,b,c->abc", *sums)
    return total


def _cut_all(
    network: Network, limits: Limits, storage: Storage, host_input: bool
) -> tuple[dict[str, Uncut], dict[str, Cut], list[Excess]]:
    uncut_layers: dict[str, Uncut] = {}
    cut: dict[str, Cut] = {}
    broken: list[Excess] = []
    for layer in reversed(network.layers):
        targets = _targets(uncut_layers, cut, layer.name, image(layer.shape))
        uncut_layers[layer.name] = uncut(network, layer, targets, host_input)
        cut[layer.name], wrong = cut_layer(uncut_layers[layer.name], limits, storage)
        broken += wrong
    for layer in network.layers:  # again, with the cores of recurrent synapses
        if not any(network.late(other, s) for other in network.layers for s in other.synapses):
            break
        targets = _targets(uncut_layers, cut, layer.name, image(layer.shape))
        uncut_layers[layer.name] = uncut(network, layer, targets, host_input)
        tiles = cut[layer.name].tiles
        cut[layer.name] = Cut(tiles, needs(uncut_layers[layer.name], tiles, limits, storage))
        known = {(one.layer, one.limit) for one in broken}
        wrong = excesses(layer.name, cut[layer.name].needs, limits)
        broken += [one for one in wrong if (one.layer, one.limit) not in known]
    names = [layer.name for layer in network.layers]
    broken.sort(key=lambda one: names.index(one.layer))
    return uncut_layers, {name: cut[name] for name in names}, broken


def _core(name: str, spans: Sequence[Span], need: Table[str, int], limits: Limits,
          place: tuple[int, int, int]) -> CoreUse:  # fmt: skip
    allowed = {limit: getattr(limits, limit) for limit in CORE_LIMITS if limit in need}
    use = {limit: need[limit] / most for limit, most in allowed.items() if most}
    binding = max(use, key=lambda limit: use[limit], default="")
    return CoreUse(
        layer=name,
        channels=spans[0],
        rows=spans[1],
        columns=spans[2],
        neurons=need["neurons_per_core"],
        axons_in=need["axons_in"],
        axons_out=need["axons_out"],
        synapse_bits=need.get("syn_bits_per_core"),
        thresholds=need["thresholds_per_core"],
        binding=binding,
        use=use.get(binding, 0.0),
        place=place,
    )


def _cores(cut: Table[str, Cut], limits: Limits, places: Places) -> tuple[CoreUse, ...]:
    found: list[CoreUse] = []
    for name, one in cut.items():
        for at in np.ndindex(*one.needs["neurons_per_core"].shape):
            need = {limit: int(counts[at]) for limit, counts in one.needs.items()}
            cuts = (ranges[n] for ranges, n in zip(one.tiles, at, strict=True))
            n = len(found)
            place = (int(places.chip[n]), int(places.x[n]), int(places.y[n]))
            found.append(_core(name, [(c.start, c.stop) for c in cuts], need, limits, place))
    return tuple(found)


def _unchecked(chip: Chip) -> tuple[str, ...]:
    names = (*CORE_LIMITS[:5], "weight_bits", "delay_max", "graded_bits", "cores")
    known = ("neurons_per_core", "syn_bits_per_core") if chip.limits.per_core else ()
    missing = [n for n in names if getattr(chip.limits, n) is None and n not in known]
    if chip.syn_format is None and chip.limits.syn_bits_per_core is not None:
        missing.append("syn_bits_per_core")
    return tuple(missing)


def map_network(network: Network, chip: Chip, host_input: bool = False) -> Mapping:
    """A network onto the cores of a chip.

    ``host_input``: the host computes what the input sends, so that its synapses need no memory.
    What does not fit is in ``unmapped``: layer, limit, need, have.
    """
    limits = chip.limits
    bits = weight_width(network, chip)
    low = lowered(network, limits.pipelined, not host_input)
    broken = _chip_wide(low.network, limits, bits)
    storage = Storage.of(chip, bits)
    shared = limits.cores == 1 or bool(limits.per_core)
    open_limits = Limits(conv_sharing=limits.conv_sharing) if shared else limits
    uncut_layers, cut, wrong = _cut_all(low.network, open_limits, storage, host_input)
    if limits.cores == 1:
        wrong = on_one_core(uncut_layers, cut, limits)
    elif limits.per_core:
        wrong = on_unequal_cores(low.network, limits, host_input)
    count = sum(one.count for one in cut.values())
    places = place_cores(chip, count, lambda: traffic(uncut_layers, cut))
    if limits.cores == 1:
        nowhere = np.zeros_like(places.chip)
        places = Places(nowhere, nowhere, nowhere, hops=False)
    chips = int(places.chip.max(initial=0)) + 1
    return Mapping(
        low,
        _cores(cut, limits, places),
        (*broken, *wrong),
        _unchecked(chip),
        bits,
        chips,
        routes_of(low.network, uncut_layers, cut, places),
        places.hops,
        tuple(
            name
            for name, own in uncut_layers.items()
            if not all(part.exact for parts in own.reaches.values() for part in parts)
        ),
    )


def map_onto(network: Network, chip: str | Path, host_input: bool | None = None) -> dict[str, Any]:
    """A network onto a chip, by the chip's name or its file, as plain values to print or draw.

    ``host_input``: as `map_network`; by default where the input is graded and the chip's spikes are
    binary. Raises RequestError (E_CHIP, E_NO_CORES).
    """
    found = load_chip(chip)
    if found.model in ("ac_mac", "memory"):
        raise RequestError(
            "E_NO_CORES", f"'{found.name}' prices bare arithmetic: it has no cores to map onto"
        )
    if host_input is None:
        host_input = is_graded(network, network.input) and not found.limits.graded_bits
    return map_network(network, found, host_input).picture(found)
