"""What a run asks of a chip, in whole numbers: operations, updates, messages, border crossings.

Counts are exact integers over all samples; nothing here knows a price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from ..network.fanout import SynapseCount, is_graded
from ..network.layers import Layer, Network
from ..network.neurons import Spiking, Sum
from ..network.trace import Trace
from .mapping import messages_sent

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
    report. updates: neurons x steps x samples of all layers but sums inside the network;
    active: updates with a non-zero current or a spike, None when the runtime does not know them.
    messages: spikes times the layers' cores they go to; graded_messages: the same for values that
    are not spikes.
    """

    layer: str
    neurons: int
    spikes: int
    synops: int
    synops_eff: int
    mac_dense: int
    mac_nz: int
    ac: int
    mac: int
    updates: int
    active: int | None
    messages: int
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


def _active(layer: Layer, trace: Trace) -> int | None:
    if trace.active is None:
        return None
    if layer.name in trace.active:
        return int(trace.active[layer.name].sum())
    # A Sum emits what it received; an integrator has nothing to do while its membrane is zero.
    emits = not isinstance(layer.neuron, Spiking)
    return int(trace.fired[layer.name].sum()) if emits else None


def _layer(
    network: Network,
    layer: Layer,
    trace: Trace,
    samples: int,
    counts: Sequence[SynapseCount],
    made: tuple[int, int],
) -> LayerCounts:
    mine = [count.operations for count in counts if count.layer == layer.name]
    spiking = isinstance(layer.neuron, Spiking)
    emitted = trace.fired[layer.name]
    sent = int((emitted * messages_sent(counts, layer.name)).sum())
    updated = not isinstance(layer.neuron, Sum) or layer.name == network.output
    return LayerCounts(
        layer=layer.name,
        neurons=layer.size,
        spikes=int(emitted.sum()) if spiking else 0,
        synops=sum(int(work.synops.sum()) for work in mine),
        synops_eff=sum(int(work.synops_eff.sum()) for work in mine),
        mac_dense=sum(int(work.mac_dense.sum()) for work in mine),
        mac_nz=sum(int(work.mac_nz.sum()) for work in mine),
        ac=made[0],
        mac=made[1],
        updates=layer.size * trace.steps * samples if updated else 0,
        active=_active(layer, trace) if updated else 0,
        messages=sent if spiking else 0,
        graded_messages=0 if spiking else sent,
    )


def _host(
    network: Network,
    trace: Trace,
    samples: int,
    counts: Sequence[SynapseCount],
    first_layer: FirstLayer,
    zeros: Zeros,
) -> HostCounts:
    frames = 1 if is_constant(network, trace) else trace.steps
    fed = [count for count in counts if count.source == network.input]
    host_mac = values_in = spikes_in = 0
    if first_layer == "host":
        made = [c.operations.mac_dense if zeros == "count" else c.operations.mac_nz for c in fed]
        host_mac = sum(int((_first(mac) if frames == 1 else mac).sum()) for mac in made)
        names = {count.layer for count in fed}
        values_in = sum(network.layer(name).size for name in names) * frames * samples
    if first_layer == "none":
        sent = messages_sent(counts, network.input)
        spikes_in = int((trace.fired[network.input] * sent).sum())
    output = network.layer(network.output)
    spiking = isinstance(output.neuron, Spiking)
    return HostCounts(
        mac=host_mac,
        values_in=values_in,
        spikes_in=spikes_in,
        spikes_out=int(trace.fired[output.name].sum()) if spiking else 0,
        values_out=0 if spiking else output.size * trace.steps * samples,
    )


def run_counts(
    network: Network,
    trace: Trace,
    counts: Sequence[SynapseCount],
    samples: int,
    first_layer: FirstLayer,
    zeros: Zeros,
) -> RunCounts:
    """Sum a run's `synapse_counts` into what the chip and the host are asked for."""
    load: dict[str, NDArray[np.int64]] = {}
    layers = []
    for layer in network.layers:
        ac = mac = np.zeros(trace.steps, np.int64)
        for count in counts:
            if count.layer == layer.name:
                more = _on_chip(count, first_layer, zeros, count.source == network.input)
                ac, mac = ac + more[0], mac + more[1]
        load[layer.name] = ac + mac
        made = (int(ac.sum()), int(mac.sum()))
        layers.append(_layer(network, layer, trace, samples, counts, made))
    return RunCounts(
        tuple(layers), _host(network, trace, samples, counts, first_layer, zeros), load
    )
