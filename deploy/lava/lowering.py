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
from ...network.lava_form import LONGEST, as_conv, check_expressible, only_map
from ...network.layers import (
    Conv,
    Delay,
    Dense,
    Layer,
    Network,
    Synapse,
)
from ...network.neurons import Sum
from ...network.support import refuse_unsupported
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
    check(network)
    check_expressible(network, arithmetic)
    check_integer(network, "count")
    arrays: Arrays = {}
    layers, injected = [], []
    for n, layer in enumerate(network.layers):
        synapses = layer.synapses
        if layer.name in arithmetic.host_scale:
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


def _synapse(
    network: Network, layer: Layer, synapse: Synapse, arithmetic: Integer
) -> tuple[dict[str, Any], NDArray[np.int32]]:
    """One connection of Lava and its weights, from a chain with one linear map in it."""
    contract = network.contract
    fed = synapse.source == network.input
    largest = math.ceil(contract.input_scale * contract.input_levels) if fed else 1
    plan: dict[str, Any] = {
        "source": synapse.source,
        "message_bits": largest.bit_length() if largest > 1 else 0,
        "weight_bits": arithmetic.weight_bits,
        "weight_exp": 0,
    }
    operation, entering = only_map(network, layer, synapse)
    delays = [part for part in synapse.operations if isinstance(part, Delay)]
    exponent = arithmetic.weight_exponents.get(operation.name, 0) if operation else 0
    if isinstance(operation, Dense):
        plan = {**plan, "weight_exp": exponent, **_delayed(layer, synapse)}
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
    as_it_is = Conv("as_it_is", np.ones((1, 1, 1, 1), np.float32))
    conv = as_conv(layer, operation, entering) if operation else as_it_is
    image = entering if operation else (1, 1, int(np.prod(entering)))
    fields = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
    plan = {**plan, "kind": "conv", "image": image, **fields}
    return plan, np.rint(conv.weight).astype(np.int32)


def _delayed(layer: Layer, synapse: Synapse) -> dict[str, Any]:
    if synapse.delay > LONGEST:
        first = next(part.name for part in synapse.operations if isinstance(part, Delay))
        raise RequestError(
            "E_RANGE",
            f"'{first}' (Delay, layer '{layer.name}') delays by {synapse.delay} steps; Lava holds "
            f"at most {LONGEST}",
        )
    return {"kind": "delay", "delay": synapse.delay} if synapse.delay else {"kind": "dense"}


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
