"""Chips that are not cut for: one core for the whole network, or a few unequal ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..network.layers import Network, Scale, Weighted
from .chip import Limits
from .cutting import Cut, Excess
from .demand import Uncut, fan_in
from .reach import Mask


def on_one_core(
    uncut_layers: Mapping[str, Uncut], cut: Mapping[str, Cut], limits: Limits
) -> list[Excess]:
    """Limits that all layers together break. A source takes one axon however many it reaches."""
    reached: dict[str, Mask] = {}
    for own in uncut_layers.values():
        for source, parts in own.reaches.items():
            for part in parts:
                lines = [mask.any(axis=1) for mask in part.axes]
                here = np.einsum("a,b,c->abc", *(np.asarray(line) for line in lines))
                reached[source] = reached[source] | here if source in reached else here
    levels = [own.thresholds for own in uncut_layers.values() if own.thresholds is not None]
    memory = [one.needs.get("syn_bits_per_core") for one in cut.values()]
    needed = {
        "neurons_per_core": sum(own.size for own in uncut_layers.values()),
        "axons_in": sum(int(mask.sum()) for mask in reached.values()),
        "thresholds_per_core": np.unique(np.concatenate([one.ravel() for one in levels])).size
        if levels
        else 0,
        "syn_bits_per_core": sum(int(bits.sum()) for bits in memory if bits is not None),
    }
    everything = "all layers together"
    broken = [
        Excess(everything, limit, count, getattr(limits, limit))
        for limit, count in needed.items()
        if getattr(limits, limit) is not None and count > getattr(limits, limit)
    ]
    allowed = limits.fan_in
    if allowed is not None:
        fans = {name: fan_in(own) for name, own in uncut_layers.items()}
        broken += [Excess(n, "fan_in", fan, allowed) for n, fan in fans.items() if fan > allowed]
    return broken


def on_unequal_cores(network: Network, limits: Limits, host_input: bool) -> list[Excess]:
    """Limits that are broken when each layer takes one of the chip's unequal cores whole."""
    kinds = limits.per_core
    sizes = {}
    for layer in network.layers:
        weights = sum(
            (op.scale if isinstance(op, Scale) else op.weight).size
            for synapse in layer.synapses
            if not (host_input and synapse.source == network.input)
            for op in synapse.operations
            if isinstance(op, Weighted)
        )
        sizes[layer.name] = (layer.size, weights)
    broken = []
    fits: dict[str, list[int]] = {}
    for name, (neurons, weights) in sizes.items():
        fits[name] = [
            n for n, k in enumerate(kinds) if neurons <= k.neurons and weights <= k.weights
        ]
        if not fits[name]:
            most = max(k.neurons for k in kinds)
            if neurons > most:
                broken.append(Excess(name, "neurons_per_core", neurons, most))
            else:
                most = max(k.weights for k in kinds if k.neurons >= neurons)
                broken.append(Excess(name, "weights_per_core", weights, most))
    seated = _matched({name: ways for name, ways in fits.items() if ways})
    left = sum(1 for ways in fits.values() if ways) - len(seated)
    if left and not broken:
        broken.append(Excess("all layers together", "cores", len(sizes), len(seated)))
    return broken


def _matched(fits: Mapping[str, list[int]]) -> dict[int, str]:
    """Core to layer, as many layers as can have one each (augmenting paths)."""
    seat: dict[int, str] = {}

    def seated(name: str, tried: set[int]) -> bool:
        for core in fits[name]:
            if core in tried:
                continue
            tried.add(core)
            if core not in seat or seated(seat[core], tried):
                seat[core] = name
                return True
        return False

    for name in fits:
        seated(name, set())
    return seat
