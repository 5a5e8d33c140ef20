"""Operations and neurons as NIR nodes: the way back from `node_types`, array for array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Operation,
    Scale,
    Shape,
    SumPool,
)
from .neurons import IF, LI, LIF, Cuba, Neuron, Stateful, Threshold, parameters
from .node_fields import Array, Params
from .node_types import Node


def _little(value: Any, dtype: str) -> Array:
    return np.asarray(value, dtype, order="C")


def port_node(kind: str, shape: Shape) -> Node:
    """The ``Input`` or ``Output`` node of a shape."""
    return Node(kind, {"shape": _little(shape, "<i8")})


def _convolution(operation: Conv | Conv1d, shape: Shape) -> Params:
    """NIR's convolutions cannot go without a bias, and have a number for each axis."""
    weight, bias = operation.weight, operation.bias
    axes = weight.ndim - 2
    return {
        "input_shape": _little(shape[1:], "<i8"),
        "weight": _little(weight, "<f4"),
        "bias": _little(np.zeros(len(weight)) if bias is None or not bias.any() else bias, "<f4"),
        "stride": _little(np.broadcast_to(operation.stride, axes), "<i8"),
        "padding": _little(np.broadcast_to(operation.padding, axes), "<i8"),
        "dilation": _little(np.broadcast_to(operation.dilation, axes), "<i8"),
        "groups": _little(operation.groups, "<i8"),
    }


def operation_node(operation: Operation, shape: Shape, dt: float) -> Node:
    """An operation that receives ``shape`` as a NIR node; a bias of zeros counts as none."""
    match operation:
        case Dense(weight=weight, bias=bias):
            params = {"weight": _little(weight, "<f4")}
            if bias is None or not bias.any():
                return Node("Linear", params)
            return Node("Affine", {**params, "bias": _little(bias, "<f4")})
        case Conv():
            return Node("Conv2d", _convolution(operation, shape))
        case Conv1d():
            return Node("Conv1d", _convolution(operation, shape))
        case Scale(scale=scale):
            return Node("Scale", {"scale": _little(np.broadcast_to(scale, shape), "<f4")})
        case Delay(steps=steps):
            delay = np.full(shape, steps * dt)
            return Node("Delay", {"delay": _little(delay, "<f8")})
        case SumPool() | AvgPool():
            return Node(
                f"{type(operation).__name__}2d",
                {
                    "kernel_size": _little(operation.kernel, "<i8"),
                    "stride": _little(operation.stride, "<i8"),
                    "padding": _little(operation.padding, "<i8"),
                },
            )
        case Flatten():
            return Node(
                "Flatten",
                {
                    "input_type": _little(shape, "<i8"),
                    "start_dim": _little(operation.start, "<i8"),
                    "end_dim": _little(operation.end, "<i8"),
                },
            )


def _time_constant(name: str, decay: NDArray[np.float32], dt: float) -> NDArray[np.float64]:
    """Tau = dt/(1 - decay), from which the float32 decay comes back."""
    tau = np.asarray(dt / (1 - decay.astype(np.float64)))
    lost = (1 - dt / tau).astype(np.float32) != decay
    if lost.any():
        raise RequestError(
            "E_VALUE",
            f"layer '{name}' has the decay {decay[lost].flat[0]:.9g}, which a time constant cannot "
            "hold; expected 0, or 1e-8 or more",
        )
    return tau


def neuron_node(name: str, neuron: Neuron, shape: Shape, dt: float) -> Node:
    """A neuron as a NIR node, every parameter at the full shape, in seconds.

    Read by Euler steps of dt it gives the same neuron: tau = dt/(1 - decay), r = gain*tau/dt (IF:
    gain/dt), v_leak = leak*tau/dt, w_in = synaptic_gain*tau_syn/dt, all in float64. RequestError
    (E_VALUE) for a decay so close to 0 or 1 that it does not come back.
    """

    def full(value: Any, dtype: str) -> Array:
        return _little(np.broadcast_to(value, shape), dtype)

    own = {part: values.astype(np.float64) for part, values in parameters(neuron).items()}
    found: dict[str, Array] = {}
    if isinstance(neuron, Stateful):
        tau = np.ones(()) if isinstance(neuron, IF) else _time_constant(name, neuron.decay, dt)
        found["r"] = full(own["gain"] * (tau / dt), "<f8")
    if isinstance(neuron, LIF | LI):
        found["tau"] = full(tau, "<f8")
    if isinstance(neuron, Cuba):
        tau_syn = _time_constant(name, neuron.synaptic_decay, dt)
        found |= {"tau_mem": full(tau, "<f8"), "tau_syn": full(tau_syn, "<f8")}
        found["w_in"] = full(own["synaptic_gain"] * (tau_syn / dt), "<f8")
    if "leak" in own:
        found["v_leak"] = full(own["leak"] * (tau / dt), "<f8")
    ends = (
        ("threshold", "threshold")
        if isinstance(neuron, Threshold)
        else ("threshold", "v_threshold")
    )
    for part, key in (ends, ("v_reset", "v_reset")):
        if part in own:
            found[key] = full(own[part], "<f4")
    return Node(type(neuron).__name__, found)
