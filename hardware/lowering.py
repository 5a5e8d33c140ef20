"""A network as a pipelined chip runs it: relays where paths differ in length.

On such a chip every layer's spikes arrive one step later. Where a layer's sources lie at different
depths, the spikes of the nearer one wait in relay neurons, one population for each step. A relay
fires when it is reached; it costs its synapse, its update and its spike like any neuron.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.layers import Conv, Layer, Network, SumPool, Synapse
from ..network.neurons import Spiking, Threshold
from ..network.shapes import shape_after
from ..network.trace import Trace


@dataclass(frozen=True, eq=False)
class Lowered:
    """The network that a chip runs. ``relays``: name of each relay layer to the layer whose spikes
    it repeats and the pixels it repeats (rows and columns of its image, or everything).
    ``depth``: steps a spike needs from the first layer to the last.
    """

    network: Network
    relays: Mapping[str, tuple[str, tuple[slice, ...]]]
    depth: int

    def fired(self, trace: Trace) -> dict[str, NDArray[np.int64]]:
        """`Trace.fired` with the relays', which fire as their source does."""
        found = dict(trace.fired)
        for name, (source, pixels) in self.relays.items():
            found[name] = trace.fired[source][(slice(None), *pixels)]
        return found


def _depths(network: Network, spikes_enter: bool) -> dict[str, int]:
    """Steps from the first layer to each; recurrent synapses make no path longer."""
    depth: dict[str, int] = {}
    for layer in network.layers:
        arrivals = [depth[s.source] + 1 for s in layer.synapses if s.source in depth]
        if spikes_enter and any(s.source == network.input for s in layer.synapses):
            arrivals.append(1)
        depth[layer.name] = max(arrivals, default=0)
    return depth


def _read(synapse: Synapse, layer: Layer) -> tuple[tuple[slice, ...], Synapse, Synapse]:
    """What a relay in front of a synapse repeats: the pixels that it reads, the relay's synapse,
    and the synapse behind it. A strided 1x1 convolution reads one pixel of each window.
    """
    rest = synapse.operations[1:]
    match synapse.operations[:1]:
        case (Conv(weight=weight, stride=stride, padding=(0, 0)) as conv,) if weight.shape[2:] == (
            1,
            1,
        ) and stride != (1, 1):
            down, right = (slice(None, None, step) for step in stride)
            pixels = SumPool(f"{layer.name}.relay", (1, 1), stride)
            behind = (replace(conv, stride=(1, 1)), *rest)
            return (slice(None), down, right), Synapse("", (pixels,)), Synapse("", behind)
    return (), Synapse("", ()), Synapse("", synapse.operations)


class _Relays:
    """Relay layers being made: one chain for each source and each choice of pixels."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.made: dict[str, list[Layer]] = {}
        self.of: dict[str, tuple[str, tuple[slice, ...]]] = {}

    def in_front(self, synapse: Synapse, steps: int) -> Synapse:
        """The synapse with its source ``steps`` relays away."""
        if steps < 1:
            return synapse
        source = self.network.layer(synapse.source)
        pixels, entry, behind = _read(synapse, source)
        stride = ",".join(str(cut.step or 1) for cut in pixels)
        shape = source.shape
        for operation in entry.operations:
            shape = shape_after(operation, shape)
        before, here = source.name, replace(entry, source=source.name)
        for step in range(1, steps + 1):
            name = f"{source.name} relay {step}" + (f" [{stride}]" if stride else "")
            while name in self.network.by_name:  # which a layer may be called
                name += "'"
            if name not in self.of:
                neuron = Threshold(np.array(0.5, np.float32))
                self.made.setdefault(source.name, []).append(Layer(name, neuron, shape, (here,)))
                self.of[name] = (source.name, pixels)
            before, here = name, Synapse(name)
        return replace(behind, source=before)


def lowered(network: Network, pipelined: bool, spikes_enter: bool) -> Lowered:
    """The network as a chip runs it; unchanged where nothing is ``pipelined``.

    ``spikes_enter``: the input is spikes, whose synapses take a step too; the host sends them when
    they are due, so they need no relay. Values that are not spikes are not relayed.
    """
    depth = _depths(network, spikes_enter)
    if not pipelined:
        return Lowered(network, {}, depth[network.output])
    relays = _Relays(network)
    layers: list[Layer] = []
    for layer in network.layers:
        synapses = []
        for synapse in layer.synapses:
            known = synapse.source in network.by_name and not network.late(layer, synapse)
            if known and isinstance(network.layer(synapse.source).neuron, Spiking):
                waits = depth[layer.name] - depth[synapse.source] - 1
                synapses.append(relays.in_front(synapse, waits))
            else:
                synapses.append(synapse)
        layers.append(replace(layer, synapses=tuple(synapses)))
    ordered = [one for layer in layers for one in (layer, *relays.made.get(layer.name, []))]
    return Lowered(replace(network, layers=tuple(ordered)), relays.of, depth[network.output])


def active_of(low: Lowered, trace: Trace) -> dict[str, Any] | None:
    """`Trace.active` with the relays', which are active when they fire."""
    if trace.active is None:
        return None
    fired = low.fired(trace)
    relayed = {name: fired[name].reshape(trace.steps, -1).sum(axis=1) for name in low.relays}
    return {**trace.active, **relayed}
