"""The portable profile: files that snnTorch 1.0.0 and SpikingJelly 2.0.0 read with equal spikes.

Both take steps of 1e-4 s, one value per layer and a reset to 0. snnTorch fires above the threshold,
SpikingJelly at it: on a grid the threshold is moved between two values that a membrane can have.
SpikingJelly's LIF computes v - v/tau, which rounds as decay*v for tau of 2, 4, 8 … steps only; any
other is written as a CubaLIF whose synaptic current keeps nothing, where both readers multiply.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ...errors import RequestError
from ...network.contract import Compare
from ...network.grid import LayerCertificate, certificate
from ...network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Scale,
    Shape,
    SumPool,
    Synapse,
)
from ...network.neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Sum,
    Threshold,
    is_driven,
    parameters,
)
from ...network.shapes import shape_after
from ...network.support import Recurrent, Table, refuse_integers, refuse_unsupported

CANNOT = "the portable profile cannot hold"
DT = 1e-4
"""Seconds; fixed in snnTorch's importer and the default of SpikingJelly's."""
BEYOND = 200
"""Binary places that no float32 has."""

_NEITHER = "neither snnTorch nor SpikingJelly reads it"
TABLE: Table = {
    **dict.fromkeys((Dense, Conv, Conv1d, SumPool, AvgPool, Flatten, LIF, CubaLIF, Sum)),
    Scale: _NEITHER,
    Delay: _NEITHER,
    IF: "snnTorch reads it as a neuron with decay 0.9",
    LI: _NEITHER,
    CubaLI: _NEITHER,
    Threshold: _NEITHER,
    Recurrent: "snnTorch reads loops of one LIF and one linear map only",
}


def _refuse(layer: Layer, reason: str) -> RequestError:
    return RequestError("E_UNSUPPORTED", f"{CANNOT} layer '{layer.name}': {reason}")


def _operation(operation: Operation) -> str:
    """Why a reader would not do the same; empty when both do."""
    match operation:
        case Conv(groups=groups) | Conv1d(groups=groups) if groups > 1:
            return "has groups, SpikingJelly takes none"
        case Conv(weight=weight) if weight.shape[2] != weight.shape[3]:
            return "has a kernel that is not square, nir miscounts what comes out of it"
        case SumPool():
            return sum_pool(operation)
    return ""


def sum_pool(pool: SumPool) -> str:
    """Why torch's LPPool2d, as which importers read sum pools, does not do the same."""
    area = math.prod(pool.kernel)
    if any(pool.padding):
        return "pads, which its readers drop"
    return f"is read as a mean times {area}, which rounds" if area & (area - 1) else ""


def _hold(network: Network) -> None:
    """Everything that the two readers do not share, refused by name."""
    refuse_integers(network, CANNOT, "export its float network")
    refuse_unsupported(network, CANNOT, TABLE)
    contract = network.contract
    if contract.reset != "value":
        raise RequestError(
            "E_UNSUPPORTED",
            f"{CANNOT} a reset by subtraction: snnTorch and SpikingJelly reset to 0",
        )
    for layer in network.layers:
        own = parameters(layer.neuron)
        if is_driven(layer.neuron):
            raise _refuse(layer, "it has an input gain or a leak, expected gain 1 and no leak")
        if "v_reset" in own and own["v_reset"].any():
            raise _refuse(layer, "it resets to another value than 0, snnTorch resets to 0")
        for name, values in own.items():
            if (values != values.flat[0]).any():
                raise _refuse(layer, f"its neurons differ in {name}, both readers take one for all")
    for layer, _, operation in network.operations():
        if reason := _operation(operation):
            raise _refuse(layer, f"'{operation.name}' {reason}")
    output = network.layer(network.output)
    if isinstance(output.neuron, Sum) and len(output.synapses) > 1:
        raise _refuse(output, "the output adds several branches, neither reader does")
    _hold_names(network)


def _hold_names(network: Network) -> None:
    names = [network.input, network.output_port, *network.by_name]
    names += [operation.name for _, _, operation in network.operations()]
    for name, count in Counter(name.replace(".", "_") for name in names).items():
        if count > 1:
            raise RequestError(
                "E_NAME",
                f"{CANNOT} two parts that are '{name}' once both readers have put '_' for '.'",
            )


# --- what is written otherwise ---


def _counted_from_behind(operation: Operation, shape: Shape) -> Operation:
    """Flatten with axes below 0: snnTorch counts the batch among the others."""
    if not isinstance(operation, Flatten):
        return operation
    start, end = (n if n < 0 else n - len(shape) for n in (operation.start, operation.end))
    return replace(operation, start=start, end=end)


def _synapse(network: Network, synapse: Synapse) -> Synapse:
    shape, found = network.shape_of(synapse.source), []
    for operation in synapse.operations:
        found.append(_counted_from_behind(operation, shape))
        shape = shape_after(operation, shape)
    return replace(synapse, operations=tuple(found))


def _one(values: Any) -> Fraction:
    return Fraction(float(values.flat[0]))


def _neuron(neuron: LIF | CubaLIF) -> LIF | CubaLIF:
    kept = 1 - _one(neuron.decay)
    if isinstance(neuron, CubaLIF) or (kept.numerator == 1 and kept < 1):
        return neuron
    return CubaLIF(np.zeros((), np.float32), neuron.decay, neuron.threshold)


def _bits(values: Any) -> int:
    """Binary places of a decay: all of it is a multiple of 2^-bits."""
    return _one(values).denominator.bit_length() - 1


def _untied(
    neuron: LIF | CubaLIF, sums: LayerCertificate | None, steps: int, compare: Compare
) -> tuple[Fraction, str]:
    """The threshold that no membrane meets, or the old one and why there is none.

    A membrane of a layer on the grid is a multiple of 2^-(kappa + bits*(T-1)); float32 rounds
    multiples of a power of two to multiples of it.
    """
    old = _one(neuron.threshold)
    if sums is None or sums.problem:
        return old, "its sums are exact on no grid"
    bits = max(_bits(values) for name, values in parameters(neuron).items() if "decay" in name)
    finest = sums.product_exponent + bits * (steps - 1)
    half = Fraction(1, 2) ** min(finest + 1, BEYOND)
    if (old / half) % 2 != 0:
        return old, ""
    moved = old + half if compare == "gt" else old - half
    if moved <= 0 or Fraction(float(np.float32(float(moved)))) != moved:
        return old, (
            f"its membranes have up to {finest} binary places in {steps} steps, and float32 has no "
            "number between two such at the threshold"
        )
    return moved, ""


def _layer(network: Network, layer: Layer, sums: LayerCertificate | None) -> tuple[Layer, str]:
    """A layer as it is written, and why its ties are not decided; empty where they are."""
    synapses = tuple(_synapse(network, synapse) for synapse in layer.synapses)
    if not isinstance(layer.neuron, LIF | CubaLIF):
        return replace(layer, synapses=synapses), ""
    neuron, contract = _neuron(layer.neuron), network.contract
    threshold, tie = _untied(neuron, sums, contract.steps, contract.compare)
    neuron = replace(neuron, threshold=np.asarray(float(threshold), np.float32))
    return replace(layer, neuron=neuron, synapses=synapses), tie


def portable(network: Network) -> tuple[Network, Mapping[str, Any]]:
    """The network as both readers take it, and what the manifest says of it.

    The manifest names the layers whose threshold was moved (from, to), those written as CubaLIF,
    and as ``ties`` those where a membrane that meets the threshold fires in SpikingJelly and not in
    snnTorch, with the reason. Where sums are exact all else is the same in both, bit for bit, for
    inputs and steps of the contract. Raises RequestError (E_UNSUPPORTED, E_NAME) for what one of
    them reads otherwise or not at all.
    """
    _hold(network)
    sums = {line.layer: line for line in certificate(network)}
    layers: list[Layer] = []
    moved: dict[str, list[float]] = {}
    as_cuba: list[str] = []
    ties: dict[str, str] = {}
    for layer in network.layers:
        new, tie = _layer(network, layer, sums.get(layer.name))
        layers.append(new)
        if tie:
            ties[layer.name] = tie
        if type(new.neuron) is not type(layer.neuron):
            as_cuba.append(layer.name)
        ends = [parameters(neuron).get("threshold") for neuron in (layer.neuron, new.neuron)]
        values = [float(end.flat[0]) for end in ends if end is not None]
        if len(set(values)) > 1:
            moved[layer.name] = values
    contract = replace(network.contract, dt=DT)
    facts = {"thresholds": moved, "as_cuba": as_cuba, "ties": ties}
    return replace(network, layers=tuple(layers), contract=contract), facts
