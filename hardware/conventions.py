"""A run in the numbers of other tools, by their rules, so that tables can be held side by side.

NeuroBench 2.3 (Yik et al., Nature Communications 16:1545, 2025) counts edges exactly and leaves out
zero weights and zero inputs, as `effective` operations here do. syops 0.0.5 multiplies dense
operations, edges ignored, by the mean of the input. Neither is used for energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import RequestError
from ..network.dynamics import Cell, State
from ..network.fanout import dense_macs, is_graded, synaptic_operations
from ..network.layers import Conv, Conv1d, Dense, Flatten, Layer, Network, Scale, Weighted
from ..network.neurons import Spiking, Stateful
from ..network.shapes import shape_after
from ..network.trace import Trace


@dataclass(frozen=True)
class NeuroBench:
    """Operations and updates of one sample on average; sparsities are shares of zeros.

    ``membrane_updates``: neurons at the first step, then those whose membrane changed; None unless
    the trace holds the currents of every sample. ``parameters``: weights and biases, of which
    ``footprint`` gives the bytes; the tool adds the buffers of the framework that ran the network.
    """

    effective_macs: Fraction
    effective_acs: Fraction
    dense: int
    activation_sparsity: Fraction
    activation_sparsity_by_layer: dict[str, Fraction]
    membrane_updates: Fraction | None
    connection_sparsity: Fraction
    parameters: int
    footprint: int


def _changed(network: Network, layer: Layer, trace: Trace) -> int | None:
    """Membranes that differ from the step before, and all at the first step; all samples."""
    neuron = layer.neuron
    if not isinstance(neuron, Stateful):
        return 0
    currents = trace.currents.get(layer.name)
    if currents is None or currents.shape[1] != trace.samples or currents.dtype.kind != "f":
        return None
    cell = Cell.of(neuron, network.contract, lambda values: values)
    state, before, total = State(), None, 0
    for current in currents.reshape(trace.steps, trace.samples, *layer.shape):
        state = cell.membrane(state, current)
        fires = isinstance(neuron, Spiking)
        state = cell.settle(state, cell.decide(state.v)) if fires else state
        now = np.broadcast_to(state.v, current.shape)
        total += now.size if before is None else int(np.count_nonzero(now != before))
        before = now
    return total


def neurobench(network: Network, trace: Trace) -> NeuroBench:
    """A run in NeuroBench's numbers. A layer's operations are additions where its input is spikes
    by the network's contract; the tool looks at the values of each call instead, so that a graded
    input that happens to hold only 0 and 1 is counted as additions there.
    """
    samples = trace.samples
    work = synaptic_operations(network, trace.fired, samples).values()
    spiking = [layer for layer in network.layers if isinstance(layer.neuron, Spiking)]
    cells = {layer.name: layer.size * trace.steps * samples for layer in spiking}
    silent = {name: size - int(trace.fired[name].sum()) for name, size in cells.items()}
    changed = [_changed(network, layer, trace) for layer in network.layers]
    known = [count for count in changed if count is not None]
    weights = [
        op.scale if isinstance(op, Scale) else op.weight
        for _, _, op in network.operations()
        if isinstance(op, Weighted)
    ]
    biases = [
        op.bias
        for _, _, op in network.operations()
        if isinstance(op, Dense | Conv | Conv1d) and op.bias is not None
    ]
    stored = sum(one.size for one in weights)
    zero = sum(int(np.count_nonzero(one == 0)) for one in weights)
    parameters = stored + sum(one.size for one in biases)
    return NeuroBench(
        Fraction(sum(int(one.mac_nz.sum()) for one in work), samples),
        Fraction(sum(int(one.synops_eff.sum()) for one in work), samples),
        trace.steps * sum(dense_macs(network).values()),
        Fraction(sum(silent.values()), max(sum(cells.values()), 1)),
        {name: Fraction(count, cells[name]) for name, count in silent.items()},
        Fraction(sum(known), samples) if len(known) == len(changed) else None,
        Fraction(zero, max(stored, 1)),
        parameters,
        4 * parameters,
    )


@dataclass(frozen=True)
class Syops:
    """Operations of one sample by syops' rule: all, additions, multiply-accumulates."""

    total: Fraction
    ac: Fraction
    mac: Fraction


def syops(network: Network, trace: Trace) -> Syops:
    """A run in syops' numbers: dense operations, a bias's among them, edges ignored; additions are
    those times the mean of a layer's spikes. Its pools, norms and neurons are left out.

    Raises RequestError (E_CONVENTION) where spikes meet a pool or a second weight before a weight:
    the mean of what arrives there is not in a trace.
    """
    ac = mac = total = Fraction(0)
    for layer in network.layers:
        for synapse in layer.synapses:
            shape = network.shape_of(synapse.source)
            if len([op for op in synapse.operations if not isinstance(op, Flatten)]) > 1:
                raise RequestError("E_CONVENTION", _no_syops(layer.name, synapse.source))
            for operation in synapse.operations:
                after = shape_after(operation, shape)
                if isinstance(operation, Dense | Conv | Conv1d):
                    each = operation.weight[0].size + (operation.bias is not None)
                    dense = Fraction(each * math.prod(after))
                    total += dense * trace.steps
                    if is_graded(network, synapse.source):
                        mac += dense * trace.steps
                    else:
                        fired = int(trace.fired[synapse.source].sum())
                        ac += dense * Fraction(fired, math.prod(shape) * trace.samples)
                elif not isinstance(operation, Flatten):
                    raise RequestError("E_CONVENTION", _no_syops(layer.name, synapse.source))
                shape = after
    return Syops(total, ac, mac)


def _no_syops(layer: str, source: str) -> str:
    return (
        f"the synapse from '{source}' into '{layer}' is not a single dense map or convolution; "
        "syops' rule needs the mean of its input, which a trace holds for layers only"
    )
