"""A network as Lava's ProcessModels hold it, the request of program ``models``; and refusals.

Everything that Lava would take silently for something else, or hang on, is refused here by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RequestError
from ...network.check import check
from ...network.check_integer import TABLE, check_integer
from ...network.contract import Integer
from ...network.dynamics import IntegerCell
from ...network.integer_sums import neuron_bias
from ...network.layers import (
    Conv,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Shape,
    SumPool,
    Synapse,
)
from ...network.neurons import Sum
from ...network.shapes import shape_after
from ...network.support import refuse_unsupported
from ...network.wiring import LONGEST
from .worker.frames import Arrays


@dataclass(frozen=True, eq=False)
class Lowered:
    """The request of a network, its arrays but for the input's, and who gets host currents."""

    request: dict[str, Any]
    arrays: Arrays
    injected: tuple[tuple[int, Layer], ...]


def check_lava(network: Network) -> None:
    """Raise RequestError (E_UNSUPPORTED, E_RANGE) for what Lava's models cannot express."""
    lower(network)


def lower(network: Network) -> Lowered:
    """A network to Lava's models. Raises RequestError: E_UNSUPPORTED or E_RANGE with the layer's
    name, the reason and what to do; and what `check` raises."""
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        raise RequestError(
            "E_UNSUPPORTED",
            f"Lava runs integer networks, this one's arithmetic is {arithmetic.kind}; quantise it "
            "first",
        )
    refuse_unsupported(network, "Lava cannot run", TABLE)
    _contract(network)
    check(network)
    check_integer(network, "count")
    arrays: Arrays = {}
    layers, injected = [], []
    for n, layer in enumerate(network.layers):
        _sources(network, layer)
        synapses = layer.synapses
        if layer.name in arithmetic.host_scale:
            _host_layer(network, layer)
            synapses = ()
            injected.append((n, layer))
        plans = []
        for m, synapse in enumerate(synapses):
            plan, arrays[f"{n}.{m}.weight"] = _synapse(network, layer, synapse, arithmetic)
            plans.append(plan)
        spiking = not isinstance(layer.neuron, Sum)
        if spiking:
            arrays |= _neuron(network, layer, n, arithmetic)
        layers.append(
            {"name": layer.name, "shape": layer.shape, "neuron": spiking, "synapses": plans}
        )
    request = {"program": "models", "input": network.input, "layers": layers}
    return Lowered(request, arrays, tuple(injected))


def _contract(network: Network) -> None:
    contract = network.contract
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


def _sources(network: Network, layer: Layer) -> None:
    for synapse in layer.synapses:
        if synapse.source == network.input:
            continue
        if isinstance(network.layer(synapse.source).neuron, Sum):
            raise RequestError(
                "E_UNSUPPORTED",
                f"Lava cannot run layer '{layer.name}': it is fed by the read-out "
                f"'{synapse.source}', which emits no spikes; run on 'event'",
            )
    if isinstance(layer.neuron, Sum) and layer.name != network.output:
        raise RequestError(
            "E_UNSUPPORTED",
            f"Lava cannot run layer '{layer.name}': a sum inside the network, and neurons of Lava "
            "pass on spikes only; let its branches meet in a spiking layer, or run on 'event'",
        )


def _host_layer(network: Network, layer: Layer) -> None:
    """The host's current is one number a neuron and step, from the input alone."""
    for synapse in layer.synapses:
        if synapse.source != network.input:
            raise RequestError(
                "E_UNSUPPORTED",
                f"Lava cannot run layer '{layer.name}': the host computes its current and knows "
                f"the input only, but it is fed by '{synapse.source}'; quantise that synapse",
            )
        for operation in synapse.operations:
            if isinstance(operation, Delay):
                raise RequestError(
                    "E_UNSUPPORTED",
                    f"Lava cannot run '{operation.name}' (Delay, layer '{layer.name}'): the host "
                    "computes this current without a memory; delay the input instead",
                )


def _synapse(
    network: Network, layer: Layer, synapse: Synapse, arithmetic: Integer
) -> tuple[dict[str, Any], NDArray[np.int32]]:
    """One connection of Lava and its weights, from a chain with one linear map in it."""
    maps: list[tuple[Operation, Shape]] = []
    delays: list[Delay] = []
    shape = network.shape_of(synapse.source)
    for part in synapse.operations:
        if isinstance(part, Delay):
            delays.append(part)
        elif not isinstance(part, Flatten):
            maps.append((part, shape))
        shape = shape_after(part, shape)
    if len(maps) > 1:
        names = " and ".join(f"'{part.name}'" for part, _ in maps)
        raise RequestError(
            "E_UNSUPPORTED",
            f"Lava cannot run the synapse from '{synapse.source}' into layer '{layer.name}': its "
            f"connections are one linear map each, here are {names}; make one of them",
        )
    contract = network.contract
    fed = synapse.source == network.input
    largest = math.ceil(contract.input_scale * contract.input_levels) if fed else 1
    plan: dict[str, Any] = {
        "source": synapse.source,
        "message_bits": largest.bit_length() if largest > 1 else 0,
        "weight_bits": arithmetic.weight_bits,
        "weight_exp": 0,
    }
    operation, entering = maps[0] if maps else (None, shape)
    exponent = arithmetic.weight_exponents.get(operation.name, 0) if operation else 0
    if isinstance(operation, Dense):
        plan = {**plan, "weight_exp": exponent, **_delayed(layer, delays)}
        return plan, np.rint(operation.weight).astype(np.int32)
    if delays:
        raise RequestError(
            "E_UNSUPPORTED",
            f"Lava cannot run '{delays[0].name}' (Delay, layer '{layer.name}'): only its dense "
            "connections have delays; delay a dense map, or run on 'event'",
        )
    if operation and exponent:
        raise RequestError(
            "E_UNSUPPORTED",
            f"Lava cannot run '{operation.name}' (layer '{layer.name}'): its convolutions have no "
            "exponent; put it into the weights, or run on 'event'",
        )
    conv = _as_conv(operation, entering)
    image = entering if operation else (1, 1, int(np.prod(entering)))
    fields = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
    plan = {**plan, "kind": "conv", "image": image, **fields}
    return plan, np.rint(conv.weight).astype(np.int32)


def _delayed(layer: Layer, delays: list[Delay]) -> dict[str, Any]:
    steps = sum(delay.steps for delay in delays)
    if steps > LONGEST:
        raise RequestError(
            "E_RANGE",
            f"'{delays[0].name}' (Delay, layer '{layer.name}') delays by {steps} steps; Lava holds "
            f"at most {LONGEST}",
        )
    return {"kind": "delay", "delay": steps} if steps else {"kind": "dense"}


def _as_conv(operation: Operation | None, shape: Shape) -> Conv:
    """A convolution, a pool of sums, or no operation at all, as a convolution."""
    match operation:
        case Conv():
            return operation
        case SumPool():
            return operation.as_conv(shape[0])
        case _:
            return Conv("as_it_is", np.ones((1, 1, 1, 1), np.float32))


def _neuron(network: Network, layer: Layer, n: int, arithmetic: Integer) -> Arrays:
    cell = IntegerCell.of(layer.neuron, network.contract, lambda v: np.rint(v).astype(np.int64))
    exponent = arithmetic.bias_exponents.get(layer.name, 0)
    own = {"du": cell.du, "dv": cell.dv, "vth": cell.threshold, "bias_exp": exponent}
    arrays: Arrays = {
        f"{n}.{name}": np.broadcast_to(np.asarray(value, np.int32), layer.shape)
        for name, value in own.items()
    }
    if layer.name not in arithmetic.host_scale:
        mantissa = neuron_bias(network, layer) >> exponent
        arrays[f"{n}.bias_mant"] = mantissa[None, None].astype(np.int16)
    return arrays
