"""What Lava's processes express of an integer network, however they are driven.

Whatever Lava would take silently for something else is refused by name.
"""

from __future__ import annotations

from ..errors import RequestError
from .contract import Contract, Integer
from .layers import Conv, Delay, Flatten, Layer, Network, Operation, Shape, SumPool, Synapse
from .neurons import Sum
from .shapes import shape_after

LONGEST = 63
"""Steps that Lava holds a value in a `DelayDense`; with more its process fails."""


def refused(layer: Layer, what: str, code: str = "E_UNSUPPORTED") -> RequestError:
    """That Lava cannot run a layer, and why."""
    return RequestError(code, f"Lava cannot run layer '{layer.name}': {what}")


def check_expressible(network: Network, arithmetic: Integer) -> None:
    """Raise RequestError (E_UNSUPPORTED) for the first thing that no process of Lava can do; it
    names the layer, or the field of the contract, and what to do."""
    if any(not isinstance(layer.neuron, Sum) for layer in network.layers):
        _contract(network.contract)
    for layer in network.layers:
        if isinstance(layer.neuron, Sum) and layer.name != network.output:
            raise refused(
                layer,
                "a sum inside the network, and neurons of Lava pass on spikes only; let its "
                "branches meet in a spiking layer, or run on 'event'",
            )
        for synapse in layer.synapses:
            source = network.by_name.get(synapse.source)
            if source is not None and isinstance(source.neuron, Sum):
                raise refused(
                    layer,
                    f"it is fed by the read-out '{source.name}', which emits no spikes; run on "
                    "'event'",
                )
            if layer.name in arithmetic.host_scale:
                _from_host(network, layer, synapse)


def _contract(contract: Contract) -> None:
    for field, found, expected, reason in (
        ("compare", contract.compare, "gt", "fires strictly above the threshold"),
        ("reset", contract.reset, "value", "is reset to 0, not by subtraction"),
    ):
        if found != expected:
            raise RequestError(
                "E_UNSUPPORTED",
                f"the contract says {field} '{found}', a neuron of Lava {reason}; train with "
                f"{field} '{expected}', or run on 'event'",
            )


def _from_host(network: Network, layer: Layer, synapse: Synapse) -> None:
    """The host's current is one number a neuron and step, from the input alone."""
    if synapse.source != network.input:
        raise refused(
            layer,
            f"the host computes its current and knows the input only, but it is fed by "
            f"'{synapse.source}'; quantise that synapse",
        )
    for operation in synapse.operations:
        if isinstance(operation, Delay) and operation.steps:
            raise RequestError(
                "E_UNSUPPORTED",
                f"Lava cannot run '{operation.name}' (Delay, layer '{layer.name}'): the host "
                "computes this current without a memory; delay the input instead",
            )


def only_map(network: Network, layer: Layer, synapse: Synapse) -> tuple[Operation | None, Shape]:
    """The one linear map of a synapse and the shape that enters it; None, and the source's shape,
    where values only pass. Raises RequestError (E_UNSUPPORTED) where there are several."""
    maps: list[tuple[Operation, Shape]] = []
    shape = network.shape_of(synapse.source)
    for operation in synapse.operations:
        if not isinstance(operation, Flatten | Delay):
            maps.append((operation, shape))
        shape = shape_after(operation, shape)
    if len(maps) > 1:
        names = " and ".join(f"'{operation.name}'" for operation, _ in maps)
        raise RequestError(
            "E_UNSUPPORTED",
            f"Lava cannot run the synapse from '{synapse.source}' into layer '{layer.name}': its "
            f"connections are one linear map each, here are {names}; make one of them",
        )
    return maps[0] if maps else (None, shape)


def as_conv(layer: Layer, operation: Operation, enters: Shape) -> Conv:
    """A convolution, or a pool of sums as one; RequestError (E_UNSUPPORTED) for another map."""
    match operation:
        case Conv():
            return operation
        case SumPool():
            return operation.as_conv(enters[0])
    kind = type(operation).__name__
    raise refused(layer, f"'{operation.name}' ({kind}) is no linear map of spikes")
