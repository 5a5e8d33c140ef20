"""A network as Loihi's synapses can carry it: from every source one linear map, no sums between.

A `Sum` inside the network is dissolved, for a map of a sum is the sum of the maps; pools, scales
and identities get weights. The result is the same network: on a grid of powers of two its currents
are equal bit for bit, so it emits the same spikes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import RequestError
from ..network.contract import Float32
from ..network.layers import Conv, Conv1d, Delay, Dense, Layer, Network, Operation, Synapse
from ..network.neurons import Sum
from .linear_maps import NotOneMapError, one_map


def loihi_form(network: Network, host: bool) -> Network:
    """The same network with at most a delay and one linear map in each synapse.

    ``host``: what an analog frame feeds is computed by the host and stays as it is. Otherwise the
    worth of an input level goes into the weights it meets, and levels enter. The arithmetic is
    float32: no grid is claimed of what comes out.
    Raises RequestError (E_UNSUPPORTED) naming the layer and what is not one map.
    """
    flat = dissolved(network)
    keep = host and network.contract.input_coding == "direct"
    taken = {flat.input, flat.output_port, *flat.by_name}
    layers = []
    for layer in flat.layers:
        synapses = tuple(
            synapse if keep and synapse.source == flat.input else _one(flat, layer, synapse)
            for synapse in layer.synapses
        )
        layers.append(replace(layer, synapses=tuple(_named(s, taken) for s in synapses)))
    contract = network.contract.with_arithmetic(Float32())
    if not keep:
        contract = replace(contract, input_scale=1.0)
    return replace(flat, layers=tuple(layers), contract=contract)


def _refusal(layer: Layer, what: str) -> RequestError:
    return RequestError("E_UNSUPPORTED", f"target 'lava' cannot hold layer '{layer.name}': {what}")


# --- Sums ---


def dissolved(network: Network) -> Network:
    """The network without any `Sum` but its read-out: one synapse for each source of a sum.

    Raises RequestError (E_UNSUPPORTED) where a bias would have to wait, E_CYCLE for sums that feed
    each other.
    """
    sums = {layer.name for layer in network.layers if isinstance(layer.neuron, Sum)}
    layers = []
    for layer in network.layers:
        if layer.name in sums - {network.output}:
            continue
        synapses = [
            edge
            for synapse in layer.synapses
            for edge in _edges(network, layer, synapse, sums, (layer.name,))
        ]
        layers.append(replace(layer, synapses=tuple(synapses)))
    return replace(network, layers=tuple(layers))


def _edges(
    network: Network, layer: Layer, synapse: Synapse, sums: set[str], path: tuple[str, ...]
) -> list[Synapse]:
    """What a synapse of ``layer`` becomes when the sums before it are dissolved."""
    if synapse.source not in sums:
        return [synapse]
    if synapse.source in path:
        raise RequestError("E_CYCLE", f"the sum '{synapse.source}' feeds itself and has no state")
    waits, places = network.late(layer, synapse), network.positions
    source = network.layer(synapse.source)
    found: list[Synapse] = []
    for part in source.synapses:
        for edge in _edges(network, source, part, sums, (*path, source.name)):
            if waits and _biased(edge.operations):
                raise _refusal(
                    layer,
                    f"the sum '{source.name}' comes a step late, and the biases of what feeds it "
                    "would have to wait too; a chip's do not",
                )
            own = _unbiased(synapse.operations) if found else synapse.operations
            operations = (*edge.operations, *own)
            late = waits + network.late(source, edge) - (places[edge.source] >= places[layer.name])
            if late > 0:
                operations = (Delay(f"{layer.name}.late_{edge.source}", late), *operations)
            found.append(Synapse(edge.source, operations))
    return found


def _unbiased(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """The same operations without their biases: a sum's reader adds its own once."""
    return tuple(
        replace(op, bias=None) if isinstance(op, Conv | Conv1d | Dense) else op for op in operations
    )


def _biased(operations: tuple[Operation, ...]) -> bool:
    biases = (getattr(op, "bias", None) for op in operations)
    return any(bias is not None and bias.any() for bias in biases)


# --- One map a synapse ---


def _one(network: Network, layer: Layer, synapse: Synapse) -> Synapse:
    """A synapse as a delay, where it has one, and one linear map."""
    steps, name, linear = 0, "", []
    for op in synapse.operations:
        if not isinstance(op, Delay):
            linear.append(op)
            continue
        if op.steps and _biased(tuple(linear)):
            raise _refusal(
                layer,
                f"the delay '{op.name}' stands behind a bias, which would have to wait too; put "
                "the delay first",
            )
        steps, name = steps + op.steps, name or op.name
    shape = network.shape_of(synapse.source)
    try:
        made = one_map(linear, shape, f"{layer.name}.from_{synapse.source}")
    except NotOneMapError as problem:
        raise _refusal(layer, f"the synapse from '{synapse.source}': {problem}") from problem
    if synapse.source == network.input and network.contract.input_scale != 1:
        made = tuple(_worth(op, network.contract.input_scale) for op in made)
    delay: tuple[Operation, ...] = (Delay(name, steps),) if steps else ()
    return Synapse(synapse.source, (*delay, *made))


def _worth(operation: Operation, scale: float) -> Operation:
    """The weights on levels in the place of those on what levels are worth."""
    if not isinstance(operation, Conv | Dense):
        return operation
    return replace(operation, weight=operation.weight * np.float32(scale))


def _named(synapse: Synapse, taken: set[str]) -> Synapse:
    """The synapse with names for its operations that nothing else has."""
    operations = []
    for op in synapse.operations:
        name, count = op.name, 1
        while name in taken:
            count += 1
            name = f"{op.name}.{synapse.source}" if count == 2 else f"{op.name}.{count}"
        taken.add(name)
        operations.append(replace(op, name=name))
    return replace(synapse, operations=tuple(operations))
