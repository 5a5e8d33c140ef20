"""Post-training quantisation of a grid network to Loihi integers.

Per layer one scale s (integer weight units per float unit); the integer network decides
``64*sum(w_int*x) + b_int > 64*vth`` with ``w_int ~ w*s``, ``vth ~ threshold*s``. The scale
minimises the squared error of the weights, clipping included, under caps that exclude every wrap
and saturation of the chip for any input. The first layer, fed by a constant analog frame, is
computed by the host and written as one bias per neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.bounds import term_sums
from ..network.check import check
from ..network.check_integer import TABLE as INTEGERS
from ..network.contract import Grid, Integer
from ..network.dynamics import DECAY_UNITS, V_MAX
from ..network.layers import AvgPool, Conv, Dense, Layer, Network, Operation, SumPool
from ..network.loihi import (
    BIAS_EXPONENT_MAX,
    MANTISSA_MAX,
    SUM_MAX,
    THRESHOLD_MAX,
)
from ..network.neurons import IF, LIF, Sum, decay_of, is_driven
from ..network.support import Table, refuse_unsupported

_POOL = "pooling has no Loihi synapse; use a strided convolution"

TABLE: Table = {**INTEGERS, SumPool: _POOL, AvgPool: _POOL}
"""What `quantise` brings to integers."""
RATIOS = np.geomspace(0.8, 5.0, 26)
"""Scales tried, in units of the one that maps the largest weight to the largest integer."""


@dataclass(frozen=True)
class LayerScale:
    """How one layer became integers: its scale, the cap that held, the shares clipped and kept."""

    layer: str
    scale: float
    cap: float
    cap_reason: str
    relative_error: float
    clipped: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self.__dict__)


def _refuse(layer: Layer, what: str) -> RequestError:
    return RequestError("E_UNSUPPORTED", f"target 'lava' cannot hold layer '{layer.name}': {what}")


def _check_form(network: Network) -> None:
    contract = network.contract
    if not isinstance(contract.arithmetic, Grid):
        already = contract.arithmetic.kind == "integer"
        raise RequestError(
            "E_UNSUPPORTED",
            "target 'lava' starts from a network on the grid; "
            + (
                "this one is in Loihi integers already: use target nir"
                if already
                else "this one has float32 weights: export its run, which rounds them"
            ),
        )
    if contract.compare != "gt" or contract.reset != "value":
        raise RequestError(
            "E_UNSUPPORTED",
            f"Loihi fires above the threshold and resets to zero; this network says "
            f"compare {contract.compare}, reset {contract.reset}",
        )
    refuse_unsupported(network, "target 'lava' cannot hold", TABLE)
    for layer in network.layers:
        if isinstance(layer.neuron, Sum):
            if layer.name != network.output:
                raise _refuse(layer, "a Sum inside the network has no Loihi neuron")
        elif isinstance(layer.neuron, LIF | IF):
            if is_driven(layer.neuron):
                raise _refuse(layer, "its current has a gain or a leak")
            decay = decay_of(layer.neuron).astype(np.float64) * DECAY_UNITS
            if (decay != np.rint(decay)).any():
                raise _refuse(layer, "its decay is not a multiple of 1/4096")
            if layer.neuron.v_reset.any():
                raise _refuse(layer, "it resets to a value other than zero")
        sources = {synapse.source for synapse in layer.synapses}
        if network.input in sources and len(sources) > 1:
            raise _refuse(layer, "it joins the analog input with spikes")
        for synapse in layer.synapses:
            if not synapse.weighted:
                raise _refuse(layer, f"the synapse from '{synapse.source}' has no weights to scale")


def _weights(layer: Layer) -> list[Dense | Conv]:
    return [op for s in layer.synapses for op in s.operations if isinstance(op, Dense | Conv)]


def _integers(weight: NDArray[np.float32], scale: float, step: int) -> NDArray[np.float64]:
    """Whole weights on the chip's step; a matrix without a positive weight keeps to -254."""
    low = -256 if (weight > 0).any() else -256 + step
    whole: NDArray[np.float64] = step * np.rint(weight.astype(np.float64) * scale / step)
    return whole.clip(low, 256 - step)


def _bias_exponent(largest: float) -> int | None:
    """Smallest exponent whose mantissa holds a bias of this size (membrane units)."""
    for exponent in range(BIAS_EXPONENT_MAX + 1):
        if np.rint(largest / 2**exponent) <= MANTISSA_MAX:
            return exponent
    return None


def _caps(network: Network, layer: Layer, sums: tuple[Any, Any]) -> dict[str, float]:
    """Largest scales the chip's ranges allow, with 1 % kept for the rounding of the weights."""
    largest = float(max(part.max(initial=0.0) for part in sums))
    bias = max(
        (float(abs(op.bias).max(initial=0.0)) for op in _weights(layer) if op.bias is not None),
        default=0.0,
    )
    caps = {
        "a synaptic sum must stay below 2^17": 0.99 * SUM_MAX / largest if largest else np.inf,
        "a bias is at most 4095 * 2^7": (
            MANTISSA_MAX * 2**BIAS_EXPONENT_MAX / (64 * bias) if bias else np.inf
        ),
    }
    if not isinstance(layer.neuron, LIF | IF):
        room = 0.99 * V_MAX / (64 * network.contract.steps)
        caps["the read-out must not saturate over T steps"] = room / largest if largest else np.inf
        return caps
    decay = float(decay_of(layer.neuron).max())
    memory = network.contract.steps if decay == 1.0 else 1 / (1 - decay)
    negative = float(sums[1].max(initial=0.0))
    caps["the membrane must not saturate below"] = (
        0.99 * V_MAX / (64 * negative * memory) if negative else np.inf
    )
    caps["a threshold is at most 131071"] = THRESHOLD_MAX / float(layer.neuron.threshold.max())
    return caps


def _error(weights: list[Dense | Conv], scale: float, step: int) -> float:
    return float(
        sum(
            ((_integers(op.weight, scale, step) / scale - op.weight) ** 2).sum(dtype=np.float64)
            for op in weights
        )
    )


def _best_scale(
    network: Network, layer: Layer, sums: tuple[Any, Any], step: int
) -> tuple[float, float, str]:
    """(scale, cap, reason of the cap): least squares among the ratios that the caps allow."""
    weights = _weights(layer)
    largest = max(float(abs(op.weight).max(initial=0.0)) for op in weights)
    caps = _caps(network, layer, sums)
    reason = min(caps, key=lambda name: caps[name])
    cap = caps[reason]
    if not largest:
        return min(cap, 1.0), cap, reason
    base = (256 - step) / largest
    scales = sorted({min(float(ratio * base), cap) for ratio in RATIOS})
    return min(scales, key=lambda scale: _error(weights, scale, step)), cap, reason


def _integer_layer(layer: Layer, scale: float, step: int) -> tuple[Layer, int, int]:
    """(layer in integers, bias exponent, number of clipped weights)."""
    biases = [op.bias for op in _weights(layer) if op.bias is not None]
    largest = max((float(abs(b).max(initial=0.0)) for b in biases), default=0.0) * scale * 64
    exponent = _bias_exponent(largest)
    if exponent is None:
        raise _refuse(layer, f"a bias of {largest:.0f} is above 4095 * 2^7; the cap failed")
    unit = 2.0**exponent
    clipped = 0

    def whole(operation: Operation) -> Operation:
        nonlocal clipped
        if not isinstance(operation, Dense | Conv):
            return operation
        integers = _integers(operation.weight, scale, step)
        clipped += int((abs(operation.weight * scale - integers) > step).sum())
        bias = operation.bias
        if bias is not None:
            bias = (np.rint(bias.astype(np.float64) * scale * 64 / unit) * unit / 64).astype(
                np.float32
            )
        return replace(operation, weight=integers.astype(np.float32), bias=bias)

    synapses = tuple(
        replace(s, operations=tuple(whole(op) for op in s.operations)) for s in layer.synapses
    )
    neuron = layer.neuron
    if isinstance(neuron, LIF | IF):
        threshold = np.rint(neuron.threshold.astype(np.float64) * scale).astype(np.float32)
        neuron = replace(neuron, threshold=threshold)
    return replace(layer, synapses=synapses, neuron=neuron), exponent, clipped


def _host_layer(layer: Layer, sums: tuple[Any, Any]) -> tuple[Layer, int, LayerScale]:
    """The first layer: float weights stay with the host; the largest scale that never clips."""
    if not isinstance(layer.neuron, LIF | IF):
        raise _refuse(layer, "a read-out fed by the analog input leaves nothing to run on the chip")
    largest = float(max(part.max(initial=0.0) for part in sums))
    room = MANTISSA_MAX * 2**BIAS_EXPONENT_MAX / 64
    cap = min(
        room / largest if largest else np.inf,
        THRESHOLD_MAX / float(layer.neuron.threshold.max()),
    )
    scale = int(cap)
    if scale < 1:
        raise _refuse(layer, f"its current of up to {largest:.1f} is beyond the bias field")
    threshold = np.rint(layer.neuron.threshold.astype(np.float64) * scale).astype(np.float32)
    neuron = replace(layer.neuron, threshold=threshold)
    facts = LayerScale(layer.name, scale, cap, "a bias is at most 4095 * 2^7", 0.0, 0)
    return replace(layer, neuron=neuron), scale, facts


def quantise(network: Network, weight_bits: int = 8) -> tuple[Network, tuple[LayerScale, ...]]:
    """A grid network to Loihi integers, legal by `check` at level ``integer``.

    Weights get ``weight_bits`` bits with mixed sign (steps of 2^(9-bits) in -256..256). Raises
    RequestError (E_UNSUPPORTED) naming the layer and what the chip cannot hold.
    """
    if not 2 <= weight_bits <= 8:
        raise RequestError("E_RANGE", f"weight bits must be 2 to 8, found {weight_bits}")
    _check_form(network)
    step = 2 ** (9 - weight_bits)
    sums = term_sums(network)
    layers: list[Layer] = []
    facts: list[LayerScale] = []
    exponents: dict[str, int] = {}
    host: dict[str, int] = {}
    for layer in network.layers:
        if layer.synapses[0].source == network.input and network.contract.input_coding == "direct":
            integer, host[layer.name], fact = _host_layer(layer, sums[layer.name])
            exponents[layer.name] = BIAS_EXPONENT_MAX
        else:
            scale, cap, reason = _best_scale(network, layer, sums[layer.name], step)
            integer, exponents[layer.name], clipped = _integer_layer(layer, scale, step)
            norm = sum(float((op.weight.astype(np.float64) ** 2).sum()) for op in _weights(layer))
            error = _error(_weights(layer), scale, step)
            relative = float(np.sqrt(error / norm)) if norm else 0.0
            fact = LayerScale(layer.name, scale, cap, reason, relative, clipped)
        layers.append(integer)
        facts.append(fact)
    arithmetic = Integer(weight_bits, exponents, host)
    contract = network.contract.with_arithmetic(arithmetic)
    quantised = replace(network, layers=tuple(layers), contract=contract)
    check(quantised, "integer")
    return quantised, tuple(facts)
