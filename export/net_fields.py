"""Layers of an integer network as the data sets of a `.net` file, or why it cannot hold them.

The format is a chain: every layer is fed by the one before it, through one matrix or convolution,
with a delay per weight at most, and a dense layer by itself. It knows one decay, one threshold and
whole biases per layer. What more a network says is refused by the layer's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.contract import Integer
from ..network.dynamics import DECAY_UNITS, WEIGHT_SHIFT
from ..network.integer_sums import neuron_bias
from ..network.layers import Conv, Delay, Dense, Flatten, Layer, Network, Synapse
from ..network.loihi import MANTISSA_MAX, MANTISSA_MIN
from ..network.net_layers import LAST_THRESHOLD
from ..network.net_remarks import MOST_DELAY, in_netx
from ..network.neurons import IF, LIF, CubaLIF, Sum, decay_of

Values = NDArray[Any]
Fields = dict[str, Any]
"""Data sets of a layer by name, text as str; a group is another dictionary."""
SILENT = {"iDecay": DECAY_UNITS, "vDecay": 0, "vThMant": LAST_THRESHOLD}
"""A neuron that adds up: the read-out of real files."""
WEIGHT_UNIT = 1 << WEIGHT_SHIFT
"""A bias of the file is worth so much in membrane units."""


@dataclass(frozen=True, eq=False)
class _Linear:
    """All synapses of a layer from one source: weights as the file says them, a delay for each
    weight (-1 where the weight is 0 and any will do), the convolution if it is one."""

    weight: NDArray[np.int64]
    delay: NDArray[np.int64]
    conv: Conv | None
    flattened: bool


def refuse(layer: Layer, what: str) -> RequestError:
    """Why a layer cannot be written."""
    return RequestError("E_UNSUPPORTED", f"a .net file cannot hold layer '{layer.name}': {what}")


def one_value(layer: Layer, values: Values, what: str) -> float:
    """A parameter that is the same for the whole layer."""
    if (values != values.flat[0]).any():
        raise refuse(layer, f"its neurons have different {what}, the format knows one a layer")
    return float(values.flat[0])


def neuron_fields(layer: Layer) -> Fields:
    """The group ``neuron``."""
    neuron = layer.neuron
    own: dict[str, int] = SILENT
    if isinstance(neuron, LIF | IF | CubaLIF):
        lost = 1.0 - one_value(layer, decay_of(neuron), "decays")
        synaptic = neuron.synaptic_decay if isinstance(neuron, CubaLIF) else np.zeros((), "f4")
        forgets = 1.0 - one_value(layer, synaptic, "synaptic decays")
        own = {
            "iDecay": round(forgets * DECAY_UNITS),
            "vDecay": round(lost * DECAY_UNITS),
            "vThMant": int(one_value(layer, neuron.threshold, "thresholds")),
        }
    elif not isinstance(neuron, Sum):
        raise refuse(layer, f"{type(neuron).__name__} is no neuron of the format")
    return {"type": "CUBA", **own, "refDelay": 1, "gradedSpike": False}


def weighted_fields(
    network: Network, layer: Layer, source: str, arithmetic: Integer, round_biases: bool
) -> tuple[Fields, bool]:
    """A dense or convolution layer fed by ``source``, and whether a flatten stands before it."""
    sources: dict[str, list[Synapse]] = {}
    for synapse in layer.synapses:
        sources.setdefault(synapse.source, []).append(synapse)
    if other := sources.keys() - {source, layer.name}:
        raise refuse(
            layer, f"it is fed by '{min(other)}' past the layer in front; the format is a chain"
        )
    if source not in sources:
        raise refuse(layer, f"it is not fed by '{source}', the layer in front of it")
    into = _linear(layer, sources[source], arithmetic)
    loop = _linear(layer, sources[layer.name], arithmetic) if layer.name in sources else None
    if into.conv is not None:
        if loop is not None:
            raise refuse(layer, "it is a convolution with a loop")
        fields = _conv_fields(layer, into, into.conv)
    else:
        fields = _dense_fields(layer, into, loop)
    bias = _bias(network, layer, round_biases)
    if bias is not None:
        fields["bias"] = bias.astype(np.float32)
    return {**fields, "neuron": neuron_fields(layer)}, into.flattened


def _linear(layer: Layer, synapses: list[Synapse], arithmetic: Integer) -> _Linear:
    """Synapses from one source, no weight of which has two delays, as one."""
    total: _Linear | None = None
    for synapse in synapses:
        found = _one(layer, synapse, arithmetic)
        if total is None:
            total = found
            continue
        same = (found.conv is None) == (total.conv is None) and found.conv is None
        if not same or found.weight.shape != total.weight.shape:
            raise refuse(layer, f"several maps lead into it from '{synapse.source}'")
        if ((found.weight != 0) & (total.weight != 0)).any():
            raise refuse(layer, f"a neuron receives '{synapse.source}' at two delays")
        delay = np.maximum(found.delay, total.delay)
        total = _Linear(found.weight + total.weight, delay, None, total.flattened)
    if total is None:
        raise refuse(layer, "it has no synapse")
    return total


def _one(layer: Layer, synapse: Synapse, arithmetic: Integer) -> _Linear:
    delay, linear, flattened = 0, None, False
    for operation in synapse.operations:
        if linear is not None:
            raise refuse(layer, f"'{operation.name}' stands behind its weights")
        match operation:
            case Delay(steps=steps):
                delay += steps
            case Flatten():
                flattened = True
            case Dense() | Conv():
                linear = operation
            case _:
                raise refuse(layer, f"'{operation.name}' ({type(operation).__name__})")
    if linear is None:
        raise refuse(layer, f"it takes '{synapse.source}' as it is; give the synapse weights")
    exponent = arithmetic.weight_exponents.get(linear.name, 0)
    scaled = linear.weight.astype(np.float64) * 2.0**exponent
    if (scaled != np.rint(scaled)).any():
        raise refuse(layer, f"the exponent {exponent} of '{linear.name}' leaves fractions")
    whole = scaled.astype(np.int64)
    delays = np.where(whole != 0, delay, -1)
    return _Linear(whole, delays, linear if isinstance(linear, Conv) else None, flattened)


def _conv_fields(layer: Layer, into: _Linear, conv: Conv) -> Fields:
    if (into.delay > 0).any():
        raise refuse(layer, "it is a convolution with a delay, which netx leaves out")
    if (into.weight < -256).any() or (into.weight > 254).any():
        raise refuse(layer, "it has weights outside -256 to 254")
    weight = into.weight
    return {
        "type": "conv",
        "shape": layer.shape,
        "weight": weight.astype(np.float32),
        "inChannels": weight.shape[1] * conv.groups,
        "outChannels": weight.shape[0],
        "kernelSize": weight.shape[2:],
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
    }


def _dense_fields(layer: Layer, into: _Linear, loop: _Linear | None) -> Fields:
    weights = [into.weight] if loop is None else [into.weight, loop.weight]
    theirs = in_netx(*weights)
    if isinstance(theirs, str):
        raise refuse(layer, f"netx could not load its weights: {theirs}")
    for own, found in zip(weights, theirs, strict=True):
        if (changed := own != found).any():
            raise refuse(
                layer,
                f"netx would run {changed.sum():,} of its weights otherwise, the first "
                f"{own[changed][0]} as {found[changed][0]:g}",
            )
    fields: Fields = {
        "type": "dense",
        "shape": (layer.size,),
        "weight": into.weight.astype(np.float32),
        "inFeatures": into.weight.shape[1],
        "outFeatures": layer.size,
    }
    if loop is not None:
        if (loop.delay > 0).any() or (into.delay > 0).any():
            raise refuse(layer, "it has a loop and delays, which netx runs with other weights")
        fields |= {"type": "dense_rec", "weight_rec": loop.weight.astype(np.float32)}
    if (delay := _delay(layer, into.delay)) is not None:
        fields["delay"] = delay.astype(np.float32)
    return fields


def _along(delay: Values, axis: int) -> Values | None:
    """The delay of each row or column, where it has one."""
    most = delay.max(axis=axis, keepdims=True)
    return most.clip(0).ravel() if ((delay == most) | (delay < 0)).all() else None


def _delay(layer: Layer, delay: NDArray[np.int64]) -> Values | None:
    """Delays in the shortest form that says them: none, one a neuron, one an input, one a weight.

    Where there are as many neurons as inputs, netx takes a row of delays for the neurons.
    """
    if delay.max() <= 0:
        return None
    if delay.max() > MOST_DELAY:
        raise refuse(layer, f"it waits {delay.max()} steps; expected {MOST_DELAY} at most")
    by_neuron, by_input = _along(delay, 1), _along(delay, 0)
    if by_neuron is not None:
        return by_neuron
    if by_input is not None and delay.shape[0] != delay.shape[1]:
        return by_input
    return delay.clip(0)


def _bias(network: Network, layer: Layer, rounded: bool) -> NDArray[np.int64] | None:
    """Whole biases (out,), None where there are none."""
    units = neuron_bias(network, layer).reshape(layer.shape[0], -1)
    if not units.any():
        return None
    if (units != units[:, :1]).any():
        raise refuse(layer, "its neurons have different biases within a channel")
    bias = np.rint(units[:, 0] / WEIGHT_UNIT).astype(np.int64)
    if not rounded and (bad := bias * WEIGHT_UNIT != units[:, 0]).any():
        raise refuse(
            layer,
            f"it has the bias {units[:, 0][bad][0]}/64, the format holds whole ones; round them "
            "with --biases rounded",
        )
    if bias.min() < MANTISSA_MIN or bias.max() > MANTISSA_MAX:
        raise refuse(layer, f"its biases go from {bias.min()} to {bias.max()}, beyond 13 bits")
    return bias
