"""The node types of NIR: one row each, from a file's values to a node and on to our parts.

A row says which parameters a node has, how each is checked and brought to one form, and what it
becomes: an operation, a neuron, or an end of the graph. A type that is known but not read yet
stands in `REFUSED` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

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
    Pair,
    Scale,
    SumPool,
)
from .neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Threshold
from .node_fields import (
    Array,
    Field,
    Params,
    not_negative,
    one,
    padding,
    pair,
    positive,
    real,
    real_of_rank,
    sizes,
    sizes_or_none,
    whole,
)
from .semantics import Semantics

Single = NDArray[np.float32]

DELAY_TOLERANCE = 1e-6
"""Share of a delay by which it may miss a whole number of steps."""


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a NIR graph; every parameter is an array, little-endian, in one form."""

    type: str
    params: Params


@dataclass(frozen=True)
class NodeType:
    """One row: parameters, defaults of those that may be absent, and what the node becomes.

    ``settle`` holds the parameters against each other and gives them in their final form.
    """

    fields: Mapping[str, Field]
    optional: Mapping[str, Callable[[Params], Array] | None] = field(default_factory=dict)
    settle: Callable[[Params], Params] = lambda params: params
    operation: Callable[[str, Params, Semantics], Operation] | None = None
    neuron: Callable[[Params, Semantics], Neuron] | None = None


# --- what the parameters of one node must have in common ---


def _bias_fits(params: Params) -> Params:
    bias, out = params["bias"], params["weight"].shape[0]
    if bias.shape != (out,):
        raise RequestError(
            "E_SHAPE", f"bias has shape {list(bias.shape)}; expected [{out}], the rows of weight"
        )
    return params


def _padded(params: Params) -> Params:
    """Padding ``same`` in numbers, where it is symmetric; and the bias must fit."""
    _bias_fits(params)
    if (params["padding"] >= 0).all():
        return params
    stride, rest = params["stride"], params["dilation"] * (np.array(params["weight"].shape[2:]) - 1)
    if (stride != 1).any() or (rest % 2).any():
        raise RequestError(
            "E_UNSUPPORTED",
            f"padding 'same' with stride {stride.tolist()} and a kernel that spans "
            f"{(rest + 1).tolist()}; it is read with stride 1 and odd spans, where both sides get "
            "the same",
        )
    return {**params, "padding": (rest // 2).astype("<i8")}


def _one_shape(params: Params) -> Params:
    """Every parameter at one shape; single numbers count for all."""
    shapes = {name: value.shape for name, value in params.items() if value.shape}
    for name, shape in shapes.items():
        first, expected = next(iter(shapes.items()))
        if shape != expected:
            raise RequestError(
                "E_SHAPE",
                f"{name} has shape {list(shape)}; expected {list(expected)}, that of {first}",
            )
    whole = next(iter(shapes.values()), ())
    return {name: np.array(np.broadcast_to(value, whole)) for name, value in params.items()}


def _zeros(params: Params) -> Array:
    return np.zeros_like(params["v_threshold"])


def _ones(params: Params) -> Array:
    return np.ones_like(params["r"])


# --- what a node becomes ---


def _ints(params: Params, name: str) -> Pair:
    first, second = params[name].tolist()
    return first, second


def _bias(params: Params) -> NDArray[np.float32] | None:
    """A bias of zeros adds nothing and is dropped: NIR's Conv2d cannot go without one."""
    return params["bias"].astype(np.float32) if params["bias"].any() else None


def _affine(name: str, params: Params, _: Semantics) -> Operation:
    return Dense(name, params["weight"].astype(np.float32), _bias(params))


def _linear(name: str, params: Params, _: Semantics) -> Operation:
    return Dense(name, params["weight"].astype(np.float32))


def _conv(name: str, params: Params, _: Semantics) -> Operation:
    return Conv(
        name,
        params["weight"].astype(np.float32),
        _bias(params),
        _ints(params, "stride"),
        _ints(params, "padding"),
        _ints(params, "dilation"),
        int(params["groups"]),
    )


def _conv1d(name: str, params: Params, _: Semantics) -> Operation:
    stride, padding, dilation = (int(params[k][0]) for k in ("stride", "padding", "dilation"))
    weight, groups = params["weight"].astype(np.float32), int(params["groups"])
    return Conv1d(name, weight, _bias(params), stride, padding, dilation, groups)


def _scale(name: str, params: Params, _: Semantics) -> Operation:
    return Scale(name, compress(params["scale"]))


def _delay(name: str, params: Params, semantics: Semantics) -> Operation:
    steps = params["delay"].astype(np.float64) / semantics.contract.dt
    whole = np.rint(steps)
    if (whole != whole.flat[0]).any():
        raise RequestError(
            "E_UNSUPPORTED",
            f"delay holds {params['delay'].min():.6g} to {params['delay'].max():.6g} s; one delay "
            "for all is read, not one per neuron",
        )
    if (abs(steps - whole) > DELAY_TOLERANCE * np.maximum(whole, 1)).any() or whole.flat[0] < 0:
        raise RequestError(
            "E_VALUE",
            f"delay holds {params['delay'].flat[0]:.6g} s, which is {steps.flat[0]:.6g} steps of "
            f"{semantics.contract.dt:.6g} s; expected a whole number of steps",
        )
    return Delay(name, int(whole.flat[0]))


def _pool(kind: type[SumPool] | type[AvgPool]) -> Callable[[str, Params, Semantics], Operation]:
    def build(name: str, params: Params, _: Semantics) -> Operation:
        pairs = (_ints(params, key) for key in ("kernel_size", "stride", "padding"))
        return kind(name, *pairs)

    return build


def _flatten(name: str, params: Params, _: Semantics) -> Operation:
    return Flatten(name, int(params["start_dim"]), int(params["end_dim"]))


def compress(values: Array) -> NDArray[np.float32]:
    """A parameter at full shape to one value, one per channel (C, 1, 1), or as it is; float32."""
    full = values.astype(np.float32)
    if (full == full.flat[0]).all():
        return np.asarray(full.flat[0])
    first = full[(slice(None), *(slice(0, 1) for _ in full.shape[1:]))]
    return np.array(first if (full == first).all() else full)


def _ends(params: Params, semantics: Semantics) -> tuple[Single, Single]:
    """Threshold and v_reset."""
    rest = params["v_reset"] if semantics.v_reset == "file" else np.zeros(())
    return compress(params["v_threshold"]), compress(rest)


def _decay(params: Params, name: str, semantics: Semantics) -> NDArray[np.float64]:
    try:
        return semantics.decay(params[name])
    except RequestError as error:
        raise RequestError(error.code, f"{name} {error.message}") from None


def _lif(params: Params, semantics: Semantics) -> LIF:
    decay = _decay(params, "tau", semantics)
    gain, leak = semantics.gain(params["r"], decay), semantics.leak(params["v_leak"], decay)
    return LIF(compress(decay), *_ends(params, semantics), compress(gain), compress(leak))


def _if(params: Params, semantics: Semantics) -> IF:
    gain = semantics.gain_without_leak(params["r"])
    return IF(*_ends(params, semantics), compress(gain))


def _li(params: Params, semantics: Semantics) -> LI:
    decay = _decay(params, "tau", semantics)
    gain, leak = semantics.gain(params["r"], decay), semantics.leak(params["v_leak"], decay)
    return LI(compress(decay), compress(gain), compress(leak))


def _cuba(params: Params, semantics: Semantics) -> dict[str, Single]:
    synaptic, decay = (_decay(params, name, semantics) for name in ("tau_syn", "tau_mem"))
    found: dict[str, Array] = {
        "synaptic_decay": synaptic,
        "decay": decay,
        "synaptic_gain": semantics.synaptic_gain(params["w_in"], synaptic),
        "gain": semantics.synaptic_gain(params["r"], decay),
        "leak": semantics.leak(params["v_leak"], decay),
    }
    return {name: compress(values) for name, values in found.items()}


def _cuba_lif(params: Params, semantics: Semantics) -> CubaLIF:
    threshold, v_reset = _ends(params, semantics)
    return CubaLIF(threshold=threshold, v_reset=v_reset, **_cuba(params, semantics))


def _cuba_li(params: Params, semantics: Semantics) -> CubaLI:
    return CubaLI(**_cuba(params, semantics))


def _threshold(params: Params, _: Semantics) -> Threshold:
    return Threshold(compress(params["threshold"]))


_PORT = NodeType({"shape": sizes})
_POOL = {"kernel_size": pair(1), "stride": pair(1), "padding": pair(0)}
_WEIGHT = real_of_rank(2, "[out, in]")
_LEAKY = {"tau": positive, "r": real, "v_leak": real}
_CUBA = {"tau_syn": positive, "tau_mem": positive, "r": real, "v_leak": real, "w_in": real}
_FIRES = {"v_threshold": not_negative, "v_reset": real}


def _convolution(axes: int, names: str) -> dict[str, Field]:
    """The fields of a convolution over so many axes."""
    several = partial(whole, axes, names)
    return {
        "input_shape": several(1),
        "weight": real_of_rank(2 + axes, f"[out, in/groups, {names}]"),
        "bias": real,
        "stride": several(1),
        "padding": padding(axes, names),
        "dilation": several(1),
        "groups": one(1, 2**20),
    }


TYPES: Mapping[str, NodeType] = {
    "Input": _PORT,
    "Output": _PORT,
    "Affine": NodeType({"weight": _WEIGHT, "bias": real}, {}, _bias_fits, operation=_affine),
    "Linear": NodeType({"weight": _WEIGHT}, operation=_linear),
    "Scale": NodeType({"scale": real}, operation=_scale),
    "Conv1d": NodeType(_convolution(1, "x"), {"input_shape": None}, _padded, operation=_conv1d),
    "Conv2d": NodeType(_convolution(2, "y, x"), {"input_shape": None}, _padded, operation=_conv),
    "SumPool2d": NodeType(_POOL, operation=_pool(SumPool)),
    "AvgPool2d": NodeType(_POOL, operation=_pool(AvgPool)),
    "Flatten": NodeType(
        {"input_type": sizes_or_none, "start_dim": one(-8, 8), "end_dim": one(-8, 8)},
        {"input_type": None},
        operation=_flatten,
    ),
    "Delay": NodeType({"delay": real}, operation=_delay),
    "Threshold": NodeType({"threshold": not_negative}, neuron=_threshold),
    "IF": NodeType({"r": real, **_FIRES}, {"v_reset": _zeros}, _one_shape, neuron=_if),
    "LI": NodeType(_LEAKY, {}, _one_shape, neuron=_li),
    "LIF": NodeType({**_LEAKY, **_FIRES}, {"v_reset": _zeros}, _one_shape, neuron=_lif),
    "CubaLI": NodeType(_CUBA, {"w_in": _ones}, _one_shape, neuron=_cuba_li),
    "CubaLIF": NodeType(
        {**_CUBA, **_FIRES}, {"w_in": _ones, "v_reset": _zeros}, _one_shape, neuron=_cuba_lif
    ),
}

REFUSED: Mapping[str, str] = {
    "I": "an integrator without leak and threshold is not run; an LI with a long time constant is"
}
