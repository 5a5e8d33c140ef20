"""What must hold of a network, whoever made it: a check follows every pass.

Level ``float``: structure, shapes and parameters. Level ``integer``: also that a Loihi-style chip
can hold every value, that its truncation finds nothing to cut, and that nothing can overflow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from .check_integer import OnOverflow, check_integer
from .contract import Integer
from .graph import legal_name
from .layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Layer,
    Network,
    Operation,
    Pair,
    Scale,
    Shape,
    SumPool,
)
from .loops import check_loops
from .neurons import parameters
from .node_fields import MAX_DELAY, MAX_SIZE
from .shapes import shape_after

Level = Literal["float", "integer"]


def check(network: Network, level: Level = "float", overflow: OnOverflow = "refuse") -> None:
    """Raise RequestError for the first thing that does not hold; it names layer, value and limit.

    ``overflow``: at level ``integer``, refuse what could overflow or let runs count it.
    E_NAME, E_LAYER (sources, output), E_SHAPE, E_VALUE, E_DTYPE; at level ``integer`` also E_RANGE
    and E_UNSUPPORTED.
    """
    _names(network)
    _shape(network.input_shape, f"the input '{network.input}'")
    if network.contract.steps < 1:
        raise RequestError(
            "E_VALUE", f"the contract says {network.contract.steps} steps; expected 1 or more"
        )
    if reason := network.contract.refused():
        raise RequestError("E_UNSUPPORTED", f"the contract asks for what is not run: {reason}")
    for layer in network.layers:
        _shape(layer.shape, f"layer '{layer.name}'")
        _synapses(network, layer)
        _neuron(layer, zero_threshold=isinstance(network.contract.arithmetic, Integer))
    check_loops(network)
    if network.output not in network.by_name:
        raise RequestError(
            "E_LAYER",
            f"the output is '{network.output}', which is no layer"
            f"{nearest(network.output, network.by_name)}",
        )
    if level == "integer":
        check_integer(network, overflow)


def _all_names(network: Network) -> Iterator[str]:
    yield network.input
    yield network.output_port
    for layer in network.layers:
        yield layer.name
    for _, _, operation in network.operations():
        yield operation.name


def _names(network: Network) -> None:
    for name, count in Counter(_all_names(network)).items():
        if not legal_name(name):
            raise RequestError(
                "E_NAME",
                f"{name[:120]!r} cannot name a part of a network; expected 1 to 100 letters, "
                "digits, '_', '.' or '-', not only dots",
            )
        if count > 1:
            raise RequestError(
                "E_NAME",
                f"{count} parts of the network are called '{name}'; expected one name for one "
                "layer, operation, input or output",
            )


def _shape(shape: Shape, what: str) -> None:
    count = 1
    for n in shape:
        count *= n
        if n < 1 or count > MAX_SIZE:
            break
    else:
        if shape:
            return
    raise RequestError(
        "E_SHAPE",
        f"{what} has shape {list(shape)}; expected axes of 1 or more and {MAX_SIZE} elements at "
        "most",
    )


def _synapses(network: Network, layer: Layer) -> None:
    if not layer.synapses:
        raise RequestError("E_LAYER", f"layer '{layer.name}' has no synapse; expected one or more")
    for synapse in layer.synapses:
        if synapse.source not in network.positions:
            raise RequestError(
                "E_LAYER",
                f"layer '{layer.name}' is fed by '{synapse.source}', which is no layer"
                f"{nearest(synapse.source, network.positions)}",
            )
        shape = network.shape_of(synapse.source)
        for operation in synapse.operations:
            _operation(operation, layer)
            shape = shape_after(operation, shape)
            _shape(shape, f"what '{operation.name}' gives")
        if shape != layer.shape:
            raise RequestError(
                "E_SHAPE",
                f"layer '{layer.name}' has shape {list(layer.shape)}, its synapse from "
                f"'{synapse.source}' gives {list(shape)}",
            )


def _operation(operation: Operation, layer: Layer) -> None:
    where = f"'{operation.name}' (layer '{layer.name}')"
    pairs: dict[str, tuple[Pair, int]] = {}
    match operation:
        case Dense():
            _weights(operation, where, 2)
        case Conv():
            _weights(operation, where, 4)
            pairs = {"stride": (operation.stride, 1), "dilation": (operation.dilation, 1)}
            pairs["padding"] = (operation.padding, 0)
            if operation.groups < 1 or operation.weight.shape[0] % operation.groups:
                raise RequestError(
                    "E_SHAPE",
                    f"{where} has {operation.groups} groups for {operation.weight.shape[0]} "
                    "channels out; expected a divisor",
                )
        case Conv1d():
            _weights(operation, where, 3)
            _operation(operation.as_conv(), layer)
        case Scale(scale=scale):
            _numbers(scale, f"{where}: the scale")
        case Delay(steps=steps):
            if not 0 <= steps <= MAX_DELAY:
                raise RequestError(
                    "E_VALUE", f"{where} waits {steps} steps; expected 0 to {MAX_DELAY}"
                )
        case SumPool() | AvgPool():
            pairs = {"kernel": (operation.kernel, 1), "stride": (operation.stride, 1)}
            pairs["padding"] = (operation.padding, 0)
    for name, (pair, low) in pairs.items():
        if min(pair) < low:
            raise RequestError(
                "E_VALUE", f"{where} has {name} {list(pair)}; expected {low} or more"
            )


def _weights(operation: Dense | Conv | Conv1d, where: str, rank: int) -> None:
    weight, bias = operation.weight, operation.bias
    if weight.ndim != rank or not weight.size:
        raise RequestError(
            "E_SHAPE", f"{where} has a weight of shape {list(weight.shape)}; expected {rank} axes"
        )
    _numbers(weight, f"{where}: the weight")
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise RequestError(
                "E_SHAPE",
                f"{where} has a bias of shape {list(bias.shape)}; expected [{weight.shape[0]}]",
            )
        _numbers(bias, f"{where}: the bias")


def _numbers(values: NDArray[Any], what: str) -> None:
    if values.dtype != np.float32:
        raise RequestError("E_DTYPE", f"{what} has dtype {values.dtype}; expected float32")
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)].flat[0]
        raise RequestError("E_VALUE", f"{what} holds {bad}; expected finite numbers")


def _neuron(layer: Layer, zero_threshold: bool) -> None:
    own = parameters(layer.neuron)
    for name, values in own.items():
        what = f"layer '{layer.name}': the {name}"
        _numbers(values, what)
        try:
            fits = np.broadcast_shapes(values.shape, layer.shape) == layer.shape
        except ValueError:
            fits = False
        if not fits:
            raise RequestError(
                "E_SHAPE",
                f"{what} has shape {list(values.shape)}; expected one that broadcasts to "
                f"{list(layer.shape)}",
            )
    least = own["threshold"].min() if "threshold" in own else 1
    if least < 0 or (least == 0 and not zero_threshold):
        raise RequestError(
            "E_VALUE", f"layer '{layer.name}': the threshold holds {least}; expected above 0"
        )
    for name in {"decay", "synaptic_decay"} & own.keys():
        low, high = own[name].min(), own[name].max()
        if not (low >= 0 and high < 1):
            raise RequestError(
                "E_VALUE",
                f"layer '{layer.name}': the {name} holds {low if low < 0 else high}; expected "
                f"0 <= {name} < 1",
            )
