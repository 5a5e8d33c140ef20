"""What a run asks of a chip, in whole numbers: operations, updates, messages, border crossings.

Counts are exact integers over all samples; nothing here knows a price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from ..network.fanout import SynapseCount, is_graded, synapse_counts
from ..network.layers import Layer, Network
from ..network.neurons import IF, Cuba, Neuron, Spiking, Sum, Threshold
from ..network.trace import Trace
from .lowering import active_of
from .mapping import Mapping
from .reach import kind_of

FirstLayer = Literal["host", "once", "per_step", "none"]
"""Where the products of a graded input are made: on the host; on the chip for one step, then
reused; on the chip at every step. ``none``: the input is spikes and makes no products."""
Zeros = Literal["count", "skip"]
"""``skip`` leaves out zero weights and zero graded values (the effective operations of Yik et al.,
arXiv:2304.04640)."""


@dataclass(frozen=True)
class LayerCounts:
    """One layer over all steps and samples.

    synops, synops_eff, mac_dense, mac_nz: as `network.fanout.Operations`, everything counted,
    wherever and how often it is then made. ac, mac: what the chip makes under the choices of the
    report; of ac, ac_dense through dense maps and ac_conv through convolutions. updates: neurons x
    steps x samples of all layers but sums inside the network; active: updates with a non-zero
    current or a spike, None when the runtime does not know them; leaky: products with a decay.
    sent: spikes that any synapse takes up. messages: spikes times the cores they go to, with their
    hops and those that leave the chip; graded_messages: messages of values that are not spikes.
    """

    layer: str
    neurons: int
    spikes: int
    synops: int
    synops_eff: int
    mac_dense: int
    mac_nz: int
    ac: int
    ac_dense: int
    ac_conv: int
    mac: int
    updates: int
    active: int | None
    leaky: int
    sent: int
    messages: int
    hops_ew: int
    hops_ns: int
    interchip: int
    graded_messages: int


@dataclass(frozen=True)
class HostCounts:
    """What the host does and what crosses the chip's border, over all samples.

    mac: multiply-accumulates of the first layer; values_in: currents it writes; spikes_in: input
    spikes sent; spikes_out, values_out: what the last layer sends back.
    """

    mac: int
    values_in: int
    spikes_in: int
    spikes_out: int
    values_out: int


@dataclass(frozen=True, eq=False)
class RunCounts:
    """All of a run; ``load``: synaptic operations on the chip per layer and step, int64 (T,)."""

    layers: tuple[LayerCounts, ...]
    host: HostCounts
    load: dict[str, NDArray[np.int64]]


def is_constant(network: Network, trace: Trace) -> bool:
    """Whether every step shows the same frame: the contract says so and no count denies it."""
    counts = trace.fired[network.input]
    return network.contract.input_coding == "direct" and bool((counts == counts[:1]).all())


def first_layer_of(
    network: Network, trace: Trace, asked: str | None, default: FirstLayer
) -> FirstLayer:
    """The asked treatment of a graded input, checked, or the default that fits the run.

    Raises RequestError (E_FIRST_LAYER).
    """
    if asked is not None and asked not in ("host", "once", "per_step"):
        raise RequestError(
            "E_FIRST_LAYER",
            f"first_layer is '{asked}'; expected host, once or per_step"
            f"{nearest(asked, ('host', 'once', 'per_step'))}",
        )
    if not is_graded(network, network.input):
        if asked is not None:
            raise RequestError(
                "E_FIRST_LAYER",
                f"first_layer is '{asked}', but the input '{network.input}' is spikes: no layer "
                "multiplies graded values",
            )
        return "none"
    constant = is_constant(network, trace)
    if asked == "once" and not constant:
        raise RequestError(
            "E_FIRST_LAYER",
            f"first_layer is 'once', but the frames of '{network.input}' differ from step to step; "
            "expected per_step or host",
        )
    if asked is None:
        return "per_step" if default == "once" and not constant else default
    return cast(FirstLayer, asked)


def _first(mac: NDArray[np.int64]) -> NDArray[np.int64]:
    """Only the first step that does anything: later ones reuse its result."""
    return np.where(np.cumsum(mac > 0) * (mac > 0) == 1, mac, 0)


def _on_chip(
    count: SynapseCount, first_layer: FirstLayer, zeros: Zeros, from_input: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(additions, multiply-accumulates) of a synapse per step, as the chip makes them."""
    work = count.operations
    ac = work.synops if zeros == "count" else work.synops_eff
    mac = work.mac_dense if zeros == "count" else work.mac_nz
    if from_input and first_layer == "host":
        return np.zeros_like(ac), np.zeros_like(mac)
    if from_input and first_layer == "once":
        mac = _first(mac)
    return ac, mac


def _decays(neuron: Neuron) -> int:
    """Products with a decay in one update."""
    if isinstance(neuron, Cuba):
        return 2
    return 0 if isinstance(neuron, IF | Sum | Threshold) else 1


@dataclass(frozen=True, eq=False)
class _Run:
    """A run as the chip makes it: the network with its relays, what fired, its synapses' counts,
    the cores (None: bare arithmetic), and the choices of the report."""

    network: Network
    fired: dict[str, NDArray[np.int64]]
    active: dict[str, NDArray[np.int64]] | None
    counts: list[SynapseCount]
    mapping: Mapping | None
    steps: int
    samples: int
    constant: bool
    first_layer: FirstLayer
    zeros: Zeros

    def by_kind(self, layer: Layer) -> dict[str, NDArray[np.int64]]:
        """Additions per step through dense maps, convolutions and bare connections, and ``mac``."""
        none = np.zeros(self.steps, np.int64)
        made = {"dense": none, "conv": none, "sparse": none, "mac": none}
        own = [count for count in self.counts if count.layer == layer.name]
        for count, synapse in zip(own, layer.synapses, strict=True):
            from_input = count.source == self.network.input
            ac, mac = _on_chip(count, self.first_layer, self.zeros, from_input)
            kind = kind_of(synapse)
            made = {**made, kind: made[kind] + ac, "mac": made["mac"] + mac}
        return made

    def active_in(self, layer: Layer) -> int | None:
        """Updates of a layer that had something to do."""
        if self.active is None:
            return None
        if layer.name in self.active:
            return int(self.active[layer.name].sum())
        # A Sum emits what it received; an integrator has nothing to do while its membrane is zero.
        emits = not isinstance(layer.neuron, Spiking)
        return int(self.fired[layer.name].sum()) if emits else None

    def sent(self, name: str) -> int:
        """Spikes, or values, of a source that any synapse takes up."""
        lines = [count.fan_out > 0 for count in self.counts if count.source == name]
        taken = np.any(lines, axis=0) if lines else np.zeros(1, bool)
        return int((self.fired[name] * taken).sum())

    def routed(self, name: str) -> tuple[int, int, int, int]:
        """Messages of a source, their hops along both axes, and those to another chip."""
        if self.mapping is None:
            return 0, 0, 0, 0
        way = self.mapping.routes[name]
        parts = (way.messages, way.hops_ew, way.hops_ns, way.interchip)
        messages, east, north, away = (int((self.fired[name] * part).sum()) for part in parts)
        return messages, east, north, away

    def layer(self, layer: Layer, made: dict[str, NDArray[np.int64]]) -> LayerCounts:
        """All that one layer does."""
        work = [count.operations for count in self.counts if count.layer == layer.name]
        spiking = isinstance(layer.neuron, Spiking)
        updated = not isinstance(layer.neuron, Sum) or layer.name == self.network.output
        updates = layer.size * self.steps * self.samples if updated else 0
        messages, *rest = self.routed(layer.name)
        totals = {kind: int(counts.sum()) for kind, counts in made.items()}
        return LayerCounts(
            layer=layer.name,
            neurons=layer.size,
            spikes=int(self.fired[layer.name].sum()) if spiking else 0,
            synops=sum(int(one.synops.sum()) for one in work),
            synops_eff=sum(int(one.synops_eff.sum()) for one in work),
            mac_dense=sum(int(one.mac_dense.sum()) for one in work),
            mac_nz=sum(int(one.mac_nz.sum()) for one in work),
            ac=totals["dense"] + totals["conv"] + totals["sparse"],
            ac_dense=totals["dense"],
            ac_conv=totals["conv"],
            mac=totals["mac"],
            updates=updates,
            active=self.active_in(layer) if updated else 0,
            leaky=updates * _decays(layer.neuron),
            sent=self.sent(layer.name) if spiking else 0,
            messages=messages if spiking else 0,
            hops_ew=rest[0] if spiking else 0,
            hops_ns=rest[1] if spiking else 0,
            interchip=rest[2] if spiking else 0,
            graded_messages=0 if spiking else messages,
        )

    def host(self) -> HostCounts:
        """What the host does, and what crosses the border."""
        frames = 1 if self.constant else self.steps
        fed = [count for count in self.counts if count.source == self.network.input]
        host_mac = values_in = spikes_in = 0
        if self.first_layer == "host":
            counted = self.zeros == "count"
            made = [c.operations.mac_dense if counted else c.operations.mac_nz for c in fed]
            host_mac = sum(int((_first(mac) if frames == 1 else mac).sum()) for mac in made)
            names = {count.layer for count in fed}
            sizes = (self.network.layer(name).size for name in names)
            values_in = sum(sizes) * frames * self.samples
        if self.first_layer == "none":
            spikes_in = self.routed(self.network.input)[0]
        output = self.network.layer(self.network.output)
        spiking = isinstance(output.neuron, Spiking)
        return HostCounts(
            mac=host_mac,
            values_in=values_in,
            spikes_in=spikes_in,
            spikes_out=int(self.fired[output.name].sum()) if spiking else 0,
            values_out=0 if spiking else output.size * self.steps * self.samples,
        )


def run_counts(
    network: Network,
    trace: Trace,
    samples: int,
    first_layer: FirstLayer,
    zeros: Zeros,
    mapping: Mapping | None,
) -> RunCounts:
    """What a run asks of the chip and of the host.

    With a ``mapping`` the network is counted as the chip runs it, relays included, and every spike
    goes its way over the cores; without one (bare arithmetic) there are no messages.
    """
    constant = is_constant(network, trace)
    fired, active = dict(trace.fired), trace.active
    if mapping is not None:
        fired, active = mapping.low.fired(trace), active_of(mapping.low, trace)
        network = mapping.low.network
    run = _Run(
        network,
        fired,
        active,
        synapse_counts(network, fired, samples),
        mapping,
        trace.steps,
        samples,
        constant,
        first_layer,
        zeros,
    )
    made = {layer.name: run.by_kind(layer) for layer in network.layers}
    return RunCounts(
        tuple(run.layer(layer, made[layer.name]) for layer in network.layers),
        run.host(),
        {name: np.sum(list(parts.values()), axis=0) for name, parts in made.items()},
    )
