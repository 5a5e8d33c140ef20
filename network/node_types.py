"""The node types of NIR: one row each, from a file's values to a node and on to our parts.

A row says which parameters a node has, how each is checked and brought to one form, and what it
becomes: an operation, a neuron, or an end of the graph. A type that is known but not read yet
stands in `REFUSED` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .layers import AvgPool, Conv, Dense, Flatten, Operation, Pair, Shape, SumPool
from .neurons import IF, LIF
from .node_fields import (
    Array,
    Field,
    not_negative,
    one,
    padding,
    pair,
    positive,
    real,
    real_of_rank,
    sizes,
)

Params = Mapping[str, Array]

GAIN_TOLERANCE = 1e-6
"""r*dt/tau may miss 1 by this: r and tau of foreign files are often float32."""


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a NIR graph; every parameter is an array, little-endian, in one form."""

    type: str
    params: Params


@dataclass(frozen=True)
class NodeType:
    """One row: parameters, defaults of those that may be absent, and what the node becomes."""

    fields: Mapping[str, Field]
    optional: Mapping[str, Callable[[Params], Array] | None] = field(default_factory=dict)
    consistent: Callable[[Params], None] = lambda _: None
    operation: Callable[[str, Params], Operation] | None = None
    neuron: Callable[[Params, float], LIF | IF] | None = None


# --- what the parameters of one node must have in common ---


def _bias_fits(params: Params) -> None:
    bias, out = params["bias"], params["weight"].shape[0]
    if bias.shape != (out,):
        raise RequestError(
            "E_SHAPE", f"bias has shape {list(bias.shape)}; expected [{out}], the rows of weight"
        )


def _one_shape(params: Params) -> None:
    shape = params["v_threshold"].shape
    for name, value in params.items():
        if value.shape != shape:
            raise RequestError(
                "E_SHAPE",
                f"{name} has shape {list(value.shape)}; expected {list(shape)}, that of "
                "v_threshold",
            )


def _no_reset(params: Params) -> Array:
    return np.zeros_like(params["v_threshold"])


# --- what a node becomes ---


def _ints(params: Params, name: str) -> Pair:
    first, second = params[name].tolist()
    return first, second


def _bias(params: Params) -> NDArray[np.float32] | None:
    """A bias of zeros adds nothing and is dropped: NIR's Conv2d cannot go without one."""
    return params["bias"].astype(np.float32) if params["bias"].any() else None


def _affine(name: str, params: Params) -> Operation:
    return Dense(name, params["weight"].astype(np.float32), _bias(params))


def _linear(name: str, params: Params) -> Operation:
    return Dense(name, params["weight"].astype(np.float32))


def _conv(name: str, params: Params) -> Operation:
    return Conv(
        name,
        params["weight"].astype(np.float32),
        _bias(params),
        _ints(params, "stride"),
        _ints(params, "padding"),
        _ints(params, "dilation"),
        int(params["groups"]),
    )


def _pool(kind: type[SumPool] | type[AvgPool]) -> Callable[[str, Params], Operation]:
    def build(name: str, params: Params) -> Operation:
        pairs = (_ints(params, key) for key in ("kernel_size", "stride", "padding"))
        return kind(name, *pairs)

    return build


def _flatten(name: str, params: Params) -> Operation:
    return Flatten(name, int(params["start_dim"]), int(params["end_dim"]))


def compress(values: Array) -> NDArray[np.float32]:
    """A parameter at full shape to one value, one per channel (C, 1, 1), or as it is; float32."""
    full = values.astype(np.float32)
    if (full == full.flat[0]).all():
        return np.asarray(full.flat[0])
    first = full[(slice(None), *(slice(0, 1) for _ in full.shape[1:]))]
    return np.array(first if (full == first).all() else full)


def _gain_is_one(gain: Array, formula: str) -> None:
    if (abs(gain - 1) > GAIN_TOLERANCE).any():
        worst = gain.flat[int(abs(gain - 1).argmax())]
        raise RequestError(
            "E_UNSUPPORTED", f"the input gain {formula} is {worst:.6g}; this release reads gain 1"
        )


def _lif(params: Params, dt: float) -> LIF:
    """Euler: decay = 1 - dt/tau, gain r*dt/tau."""
    tau = params["tau"].astype(np.float64)
    if params["v_leak"].any():
        worst = params["v_leak"].flat[int((params["v_leak"] != 0).argmax())]
        raise RequestError(
            "E_UNSUPPORTED",
            f"v_leak holds {worst}, a constant current; this release reads v_leak 0",
        )
    with np.errstate(over="ignore"):  # a tiny tau: the decay is then far below 0
        decay = (1 - dt / tau).astype(np.float32)
    if decay.min() < 0 or decay.max() >= 1:
        worst = tau.min() if decay.min() < 0 else tau.max()
        raise RequestError(
            "E_VALUE",
            f"tau holds {worst:.6g} s, with dt {dt:.6g} s the decay 1 - dt/tau leaves [0, 1)",
        )
    _gain_is_one(params["r"] * dt / tau, "r*dt/tau")
    return LIF(compress(decay), compress(params["v_threshold"]), compress(params["v_reset"]))


def _if(params: Params, dt: float) -> IF:
    _gain_is_one(params["r"].astype(np.float64) * dt, "r*dt")
    return IF(compress(params["v_threshold"]), compress(params["v_reset"]))


_PORT = NodeType({"shape": sizes})
_POOL = {"kernel_size": pair(1), "stride": pair(1), "padding": pair(0)}
_WEIGHT = real_of_rank(2, "[out, in]")

TYPES: Mapping[str, NodeType] = {
    "Input": _PORT,
    "Output": _PORT,
    "Affine": NodeType({"weight": _WEIGHT, "bias": real}, {}, _bias_fits, operation=_affine),
    "Linear": NodeType({"weight": _WEIGHT}, operation=_linear),
    "Conv2d": NodeType(
        {
            "input_shape": pair(1),
            "weight": real_of_rank(4, "[out, in/groups, y, x]"),
            "bias": real,
            "stride": pair(1),
            "padding": padding,
            "dilation": pair(1),
            "groups": one(1, 2**20),
        },
        {"input_shape": None},
        _bias_fits,
        operation=_conv,
    ),
    "SumPool2d": NodeType(_POOL, operation=_pool(SumPool)),
    "AvgPool2d": NodeType(_POOL, operation=_pool(AvgPool)),
    "Flatten": NodeType(
        {"input_type": sizes, "start_dim": one(-8, 8), "end_dim": one(-8, 8)},
        {"input_type": None},
        operation=_flatten,
    ),
    "LIF": NodeType(
        {
            "tau": positive,
            "r": real,
            "v_leak": real,
            "v_threshold": not_negative,
            "v_reset": real,
        },
        {"v_reset": _no_reset},
        _one_shape,
        neuron=_lif,
    ),
    "IF": NodeType(
        {"r": real, "v_threshold": not_negative, "v_reset": real},
        {"v_reset": _no_reset},
        _one_shape,
        neuron=_if,
    ),
}

REFUSED: Mapping[str, str] = {
    "Conv1d": "convolutions over one axis are not read yet",
    "Scale": "scaling nodes are not read yet",
    "Threshold": "neurons without a membrane are not read yet",
    "Delay": "delays are not read yet",
    "I": "integrators without a threshold are not read yet",
    "LI": "integrators without a threshold are not read yet",
    "CubaLI": "neurons with a synaptic current are not read yet",
    "CubaLIF": "neurons with a synaptic current are not read yet",
    "NIRGraph": "graphs inside a graph are not read yet",
}


# --- and back ---


def _little(value: Any, dtype: str) -> Array:
    return np.asarray(value, dtype, order="C")


def port_node(kind: str, shape: Shape) -> Node:
    """The ``Input`` or ``Output`` node of a shape."""
    return Node(kind, {"shape": _little(shape, "<i8")})


def operation_node(operation: Operation, shape: Shape) -> Node:
    """An operation that receives ``shape`` as a NIR node; a bias of zeros counts as none."""
    match operation:
        case Dense(weight=weight, bias=bias):
            params = {"weight": _little(weight, "<f4")}
            if bias is None or not bias.any():
                return Node("Linear", params)
            return Node("Affine", {**params, "bias": _little(bias, "<f4")})
        case Conv(weight=weight, bias=bias):
            plain = bias is None or not bias.any()
            return Node(
                "Conv2d",
                {
                    "input_shape": _little(shape[1:], "<i8"),
                    "weight": _little(weight, "<f4"),
                    "bias": _little(np.zeros(weight.shape[0]) if plain else bias, "<f4"),
                    "stride": _little(operation.stride, "<i8"),
                    "padding": _little(operation.padding, "<i8"),
                    "dilation": _little(operation.dilation, "<i8"),
                    "groups": _little(operation.groups, "<i8"),
                },
            )
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


def neuron_node(name: str, neuron: LIF | IF, shape: Shape, dt: float) -> Node:
    """A neuron as a NIR node, every parameter at the full shape, in seconds.

    tau = dt/(1 - decay) and r = tau/dt (IF: 1/dt) in float64, so that the gain is 1 and the
    float32 decay comes back from tau. RequestError (E_VALUE) for a decay so close to 0 or 1 that
    it does not.
    """

    def full(value: Any, dtype: str) -> Array:
        return _little(np.broadcast_to(value, shape), dtype)

    ends = {
        "v_threshold": full(neuron.threshold, "<f4"),
        "v_reset": full(neuron.v_reset, "<f4"),
    }
    if isinstance(neuron, IF):
        return Node("IF", {"r": full(1 / dt, "<f8"), **ends})
    tau = dt / (1 - neuron.decay.astype(np.float64))
    lost = (1 - dt / tau).astype(np.float32) != neuron.decay
    if lost.any():
        raise RequestError(
            "E_VALUE",
            f"layer '{name}' has the decay {neuron.decay[lost].flat[0]:.9g}, which a time constant "
            "cannot hold; expected 0, or 1e-8 or more",
        )
    return Node(
        "LIF",
        {
            "tau": full(tau, "<f8"),
            "r": full(tau / dt, "<f8"),
            "v_leak": full(0.0, "<f8"),
            **ends,
        },
    )
