"""Level integer of `check`: what a Loihi-style chip can hold, and that nothing can overflow.

Weights on the step of their bits and sign mode, biases a mantissa times a power of two,
thresholds and decays in their fields; then, as `overflow` bounds them, that no sum or current
wraps and no membrane or read-out saturates within the contract's steps, unless overflows are
counted instead. That a neuron fires at its threshold (``ge``) or subtracts it is legal here: these
are integers that a programmable chip can run, and what cannot (Lava, the first Loihi) refuses them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from .bounds import Bounds, bias_sums
from .contract import Contract, Integer
from .dynamics import DECAY_UNITS, WEIGHT_SHIFT
from .layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Scale,
    SumPool,
    Synapse,
)
from .loihi import (
    BIAS_EXPONENT_MAX,
    MANTISSA_MAX,
    MANTISSA_MIN,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
    effective_weight,
    sign_mode,
    weight_step,
)
from .neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Resetting,
    Sum,
    Threshold,
    decay_of,
    is_driven,
)
from .overflow import beyond_32_bits, overflows, told
from .support import Recurrent, Table, refuse_unsupported

OnOverflow = Literal["refuse", "count"]

_NUMBERS = "what it emits are numbers, and a chip's neurons emit spikes"

TABLE: Table = {
    **dict.fromkeys((Dense, Conv, SumPool, AvgPool, Flatten, Delay, LIF, IF, CubaLIF, Sum)),
    Recurrent: None,
    Conv1d: "convolutions over one axis are not brought to integers yet",
    Scale: "it has no weights of its own; fold it into the linear map beside it",
    LI: _NUMBERS,
    CubaLI: _NUMBERS,
    Threshold: "neurons without a membrane are not brought to integers yet",
}


def check_integer(network: Network, overflow: OnOverflow = "refuse") -> None:
    """Raise RequestError (E_RANGE, E_UNSUPPORTED) for the first value a chip cannot hold.

    ``overflow``: refuse, with the neuron and what drives it there, a network that some input can
    make overflow; or count: let it pass, its runs count what happens (`Trace.overflows`). Sums
    that 32 bits cannot hold are refused either way.
    """
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        raise RequestError(
            "E_UNSUPPORTED",
            f"the network's arithmetic is {arithmetic.kind}; expected integer, quantise it first",
        )
    refuse_unsupported(network, "integers cannot hold", TABLE)
    _contract(network, network.contract, arithmetic)
    for layer in network.layers:
        _neuron(layer)
        if layer.name not in arithmetic.host_scale:
            for synapse in layer.synapses:
                _synapse(layer, synapse, arithmetic.weight_bits)
            _bias(layer, bias_sums(network, layer), arithmetic)
    if overflow == "refuse" and (found := overflows(network)):
        raise RequestError("E_RANGE", f"{told(network, found[0])}; use smaller weights")
    if too_large := beyond_32_bits(network):
        raise RequestError("E_RANGE", f"{too_large}; use smaller weights or exponents")


def _contract(network: Network, contract: Contract, arithmetic: Integer) -> None:
    if contract.late_reset:
        raise RequestError(
            "E_UNSUPPORTED",
            "the contract says that a spike subtracts its threshold one step later; integers do "
            "it in the step of the spike (same_step)",
        )
    if not 1 <= arithmetic.weight_bits <= 8:
        raise RequestError("E_RANGE", f"weights of {arithmetic.weight_bits} bits; expected 1 to 8")
    names = {**arithmetic.bias_exponents, **arithmetic.host_scale}
    for name in names:
        if name not in network.by_name:
            raise RequestError("E_LAYER", f"the contract's arithmetic names '{name}', no layer")
    for name, exponent in arithmetic.bias_exponents.items():
        if not 0 <= exponent <= BIAS_EXPONENT_MAX:
            raise RequestError(
                "E_RANGE",
                f"layer '{name}' has the bias exponent {exponent}; expected 0 to "
                f"{BIAS_EXPONENT_MAX}",
            )
    for name, scale in arithmetic.host_scale.items():
        if name not in arithmetic.bias_exponents or not 1 <= scale <= 2**31:
            raise RequestError(
                "E_RANGE",
                f"layer '{name}' gets its current from the host at scale {scale}; expected a "
                "scale of 1 to 2^31 and a bias exponent",
            )
    summed = {
        operation.name
        for layer, _, operation in network.operations()
        if isinstance(operation, Dense | Conv) and layer.name not in arithmetic.host_scale
    }
    for name in sorted(arithmetic.weight_exponents.keys() - summed):
        raise RequestError(
            "E_LAYER",
            f"the contract's arithmetic gives '{name}' an exponent, which is no dense map or "
            f"convolution in integers{nearest(name, summed)}",
        )


def _first(values: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    """The first bad value and where it stands."""
    at = [int(i) for i in np.argwhere(bad)[0]]
    return f"{values[tuple(at)]:.9g} at {at}"


def _synapse(layer: Layer, synapse: Synapse, bits: int) -> None:
    for operation in synapse.operations:
        if isinstance(operation, AvgPool):
            raise RequestError(
                "E_UNSUPPORTED",
                f"'{operation.name}' (layer '{layer.name}') averages, integers cannot; use a sum "
                "pool and fold the division into the next weights",
            )
    if len(synapse.weighted) > 1:
        raise RequestError(
            "E_UNSUPPORTED",
            f"the synapse from '{synapse.source}' into layer '{layer.name}' has "
            f"{len(synapse.weighted)} weight matrices; expected one, join them",
        )
    for operation in synapse.operations:
        if isinstance(operation, Dense | Conv):
            _weight(operation, layer, bits)


def _weight(operation: Dense | Conv, layer: Layer, bits: int) -> None:
    weight, where = operation.weight, f"'{operation.name}' (layer '{layer.name}')"
    bad = (weight != np.rint(weight)) | (weight < WEIGHT_MIN) | (weight > WEIGHT_MAX)
    if bad.any():
        raise RequestError(
            "E_RANGE",
            f"{where} has the weight {_first(weight, bad)}; expected whole numbers from "
            f"{WEIGHT_MIN} to {WEIGHT_MAX}",
        )
    mode = sign_mode(weight)
    cut = effective_weight(weight, bits, mode)
    bad = cut != weight
    if bad.any():
        kept = cut[tuple(np.argwhere(bad)[0])]
        raise RequestError(
            "E_RANGE",
            f"{where} has the weight {_first(weight, bad)}, of which {bits} bits in {mode} mode "
            f"keep {kept}; expected multiples of {weight_step(bits, mode)} that fit",
        )


def _bias(layer: Layer, terms: Bounds, arithmetic: Integer) -> None:
    """The biases of all synapses together are what one neuron's bias must hold."""
    total = terms[0] - terms[1]
    if not total.any():
        return
    exponent = arithmetic.bias_exponents.get(layer.name)
    if exponent is None:
        raise RequestError(
            "E_RANGE", f"layer '{layer.name}' has a bias, but the contract gives no exponent for it"
        )
    mantissa = total * (2**WEIGHT_SHIFT / 2**exponent)
    bad = (mantissa != np.rint(mantissa)) | (mantissa < MANTISSA_MIN) | (mantissa > MANTISSA_MAX)
    if bad.any():
        raise RequestError(
            "E_RANGE",
            f"layer '{layer.name}' has the bias mantissa {_first(mantissa, bad)} at exponent "
            f"{exponent}; expected whole numbers from {MANTISSA_MIN} to {MANTISSA_MAX}",
        )


def _neuron(layer: Layer) -> None:
    neuron = layer.neuron
    if not isinstance(neuron, Resetting):
        return
    threshold = neuron.threshold
    bad = (threshold != np.rint(threshold)) | (threshold > THRESHOLD_MAX) | (threshold < 0)
    if bad.any():
        raise RequestError(
            "E_RANGE",
            f"layer '{layer.name}' has the threshold {_first(threshold, bad)}; expected whole "
            f"numbers from 0 to {THRESHOLD_MAX}",
        )
    if neuron.v_reset.any():
        raise RequestError(
            "E_UNSUPPORTED",
            f"layer '{layer.name}' is reset to {_first(neuron.v_reset, neuron.v_reset != 0)}; "
            "expected 0",
        )
    if is_driven(neuron):
        raise RequestError(
            "E_UNSUPPORTED",
            f"layer '{layer.name}' has a gain or a leak; expected gain 1 and leak 0, fold them "
            "into its weights and biases",
        )
    decays = {"decay": decay_of(neuron)}
    if isinstance(neuron, CubaLIF):
        decays["synaptic decay"] = neuron.synaptic_decay
    for name, decay in decays.items():
        units = decay.astype(np.float64) * DECAY_UNITS
        bad = units != np.rint(units)
        if bad.any():
            raise RequestError(
                "E_RANGE",
                f"layer '{layer.name}' has the {name} {_first(units / DECAY_UNITS, bad)}; expected "
                f"a multiple of 1/{DECAY_UNITS}",
            )
