"""The value that flows through a plain nn.Module under a learning rule.

A module written in nn.Conv2d, nn.Linear, nn.BatchNorm, pooling, flatten, ``+`` and our neurons is
called on a `Carried` in the place of a tensor. Torch hands every function of it to
`Carried.__torch_function__`, which tells the value's `Treatment` what is to be done: nothing of the
module is converted, hooked or remembered. A learning rule is a treatment; so is whatever wants to
walk a module (an exporter learns its topology that way).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RequestError
from .distributed import place
from .operations import (
    Affine,
    AveragePool,
    Convolution,
    FixedMap,
    Flatten,
    LinearMap,
    Norm,
    Pair,
    Reshape,
    SumPool,
)
from .spiking import Population

V = TypeVar("V")


class Treatment(Protocol[V]):
    """What is done to a carried value of type V; each method returns a new value.

    Operations come as data (`operations`) with the module's own parameters in them, so that a
    parameter's name can be found by identity. Axes count from the batch: time is not seen.
    """

    def example(self, value: V) -> Tensor:
        """One step, (B, ...): for its shape, dtype and device only (it may be a meta tensor)."""
        ...

    def linear(self, value: V, operation: LinearMap) -> V:
        """A convolution or a matrix product."""
        ...

    def normalise(self, value: V, norm: Norm) -> V:
        """Batch normalisation of input currents."""
        ...

    def fire(self, value: V, module: Population) -> V:
        """Currents to spikes; ``module.spiking`` holds the neuron's parameters."""
        ...

    def recur(self, value: V, module: Population, weights: LinearMap) -> V:
        """Currents to spikes, where the population's own spikes of the last step, none at the
        first, are mapped by ``weights`` and added to its current."""
        ...

    def fixed(self, value: V, operation: FixedMap) -> V:
        """A linear map without parameters: pooling, flatten, reshape."""
        ...

    def scale(self, value: V, factor: float | Tensor) -> V:
        """Multiply by a number, or by a mask that broadcasts against (B, ...) (dropout)."""
        ...

    def add(self, a: V, b: V) -> V:
        """Sum of two values."""
        ...

    def join(self, values: Sequence[V], axis: int) -> V:
        """Concatenation along an axis of (B, ...), not the batch; may be negative."""
        ...

    def replace(self, value: V, function: Callable[[Tensor], Tensor], name: str) -> V:
        """A function that is not linear, e.g. max pooling; ``name`` is torch's."""
        ...


def _refuse(name: str, why: str) -> NoReturn:
    raise RequestError("E_MODEL", f"a spiking module cannot use '{name}': {why}")


class Carried(Generic[V]):
    """A value with its treatment. Behaves like a tensor (B, ...) as far as it is understood."""

    __slots__ = ("treatment", "value")

    def __init__(self, value: V, treatment: Treatment[V]) -> None:
        self.value = value
        self.treatment = treatment

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        handler = _HANDLERS.get(function)
        if handler is None:
            name = getattr(function, "__name__", str(function))
            known = ", ".join(sorted({f.__name__.strip("_") for f in _HANDLERS.values()}))
            _refuse(name, _WHY_NOT.get(name, f"it may use {known} and neurons"))
        return handler(*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"'{name}' is not known of a value that flows through a spiking module: it has time, "
            "and under some rules no single tensor"
        )

    @property
    def shape(self) -> torch.Size:
        """(B, ...), time not counted."""
        return self.treatment.example(self.value).shape

    def size(self, axis: int | None = None) -> Any:
        """``shape``, or one entry of it."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        """Number of axes, time not counted."""
        return len(self.shape)

    def fire(self, module: Population) -> Carried[V]:
        """Currents to spikes through a neuron module."""
        return self._with(self.treatment.fire(self.value, module))

    def recur(self, module: Population, weights: LinearMap) -> Carried[V]:
        """Currents to spikes through neurons that feed themselves."""
        return self._with(self.treatment.recur(self.value, module, weights))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Carried[V]:
        """As torch.flatten; the batch axis stays."""
        return _flatten(self, start_dim, end_dim)

    def reshape(self, *shape: Any) -> Carried[V]:
        """As torch.reshape; the batch axis stays."""
        return _reshape(self, *shape)

    view = reshape

    def _with(self, value: V) -> Carried[V]:
        return Carried(value, self.treatment)

    def __add__(self, other: Any) -> Carried[V]:
        return _add(self, other)

    def __sub__(self, other: Any) -> Carried[V]:
        return _sub(self, other)

    def __neg__(self) -> Carried[V]:
        return _mul(self, -1.0)

    def __mul__(self, factor: Any) -> Carried[V]:
        return _mul(self, factor)

    def __truediv__(self, divisor: Any) -> Carried[V]:
        return _div(self, divisor)

    __radd__ = __add__
    __rmul__ = __mul__


def _pair(value: Any) -> Pair:
    if isinstance(value, int):
        return (value, value)
    first, *rest = value
    return (int(first), int(rest[0] if rest else first))


def _same_padding(weight: Tensor, dilation: Pair) -> Pair:
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if total[0] % 2 or total[1] % 2:
        _refuse("conv2d", "padding 'same' with an even kernel pads one side more than the other")
    return (total[0] // 2, total[1] // 2)


def _is_carried(name: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, Carried):
            _refuse(name, f"one operand is a {type(value).__name__} that does not flow through it")


def _conv2d(
    input: Carried[V],
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Carried[V]:
    _is_carried("conv2d", input)
    if padding == "valid":
        padding = 0
    pad = _same_padding(weight, _pair(dilation)) if padding == "same" else _pair(padding)
    operation = Convolution(weight, bias, _pair(stride), pad, _pair(dilation), groups)
    return input._with(input.treatment.linear(input.value, operation))


def _linear(input: Carried[V], weight: Tensor, bias: Tensor | None = None) -> Carried[V]:
    _is_carried("linear", input)
    return input._with(input.treatment.linear(input.value, Affine(weight, bias)))


def _batch_norm(
    input: Carried[V],
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Carried[V]:
    norm = Norm(weight, bias, running_mean, running_var, training, momentum, eps)
    return input._with(input.treatment.normalise(input.value, norm))


def _avg_pool2d(
    input: Carried[V],
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Carried[V]:
    kernel, pad = _pair(kernel_size), _pair(padding)
    step = _pair(stride) if stride not in (None, [], ()) else kernel
    if ceil_mode:
        _refuse("avg_pool2d", "ceil_mode makes windows of unequal size")
    if not count_include_pad and pad != (0, 0):
        _refuse("avg_pool2d", "count_include_pad=False makes windows of unequal weight")
    if divisor_override not in (None, 1):
        _refuse("avg_pool2d", f"divisor_override is {divisor_override}, expected None or 1 (sum)")
    form = AveragePool if divisor_override is None else SumPool
    return input._with(input.treatment.fixed(input.value, form(kernel, step, pad)))


def _adaptive_avg_pool2d(input: Carried[V], output_size: Any) -> Carried[V]:
    size, wanted = input.shape[2:], output_size
    if isinstance(wanted, int):
        wanted = (wanted, wanted)
    goal = tuple(n if w is None else w for n, w in zip(size, wanted, strict=True))
    if any(n % w for n, w in zip(size, goal, strict=True)):
        _refuse("adaptive_avg_pool2d", f"{list(size)} does not divide evenly into {list(goal)}")
    kernel = (size[0] // goal[0], size[1] // goal[1])
    return input._with(input.treatment.fixed(input.value, AveragePool(kernel, kernel, (0, 0))))


def _max_pool2d(input: Carried[V], *args: Any, **kwargs: Any) -> Carried[V]:
    def pool(x: Tensor) -> Tensor:
        pooled: Tensor = F.max_pool2d(x, *args, **kwargs)
        return pooled

    return input._with(input.treatment.replace(input.value, pool, "max_pool2d"))


def _relu(input: Carried[V], inplace: bool = False) -> Carried[V]:  # noqa: ARG001 - torch's name
    return input._with(input.treatment.replace(input.value, torch.relu, "relu"))


def _dropout(
    input: Carried[V],
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001 - torch's name
) -> Carried[V]:
    if not training or p == 0.0:
        return input
    # One mask for all steps: a neuron is there or not, it does not flicker.
    like, here = input.treatment.example(input.value), place()
    # Drawn for the samples of all processes, whose random state is the same, as one would draw it.
    drawn = F.dropout(like.new_ones((len(like) * here.world, *like.shape[1:])), p)
    mask = drawn[here.rank * len(like) : (here.rank + 1) * len(like)]
    return input._with(input.treatment.scale(input.value, mask))


def _flatten(input: Carried[V], start_dim: int = 0, end_dim: int = -1) -> Carried[V]:
    rank = input.dim()
    start = start_dim if start_dim >= 0 else rank + start_dim
    end = end_dim if end_dim >= 0 else rank + end_dim
    if not 1 <= start <= end < rank:
        _refuse("flatten", f"axes {start_dim} to {end_dim} of {rank}; the batch axis must stay")
    # In the form that holds for any rank where it is one: "to the last axis" is -1.
    operation = Flatten(start - 1, -1 if end == rank - 1 else end - 1)
    return input._with(input.treatment.fixed(input.value, operation))


def _reshape(input: Carried[V], *shape: Any) -> Carried[V]:
    flat = len(shape) == 1 and not isinstance(shape[0], int)
    sizes: tuple[int, ...] = tuple(shape[0]) if flat else tuple(shape)
    batch, size = input.shape[0], math.prod(input.shape[1:])
    wanted = _filled_in(sizes[1:], size)
    if wanted is None or sizes[0] not in (batch, -1) or (sizes[0] == -1 and -1 in sizes[1:]):
        _refuse("reshape", f"to {list(sizes)}; expected the batch of {batch}, then {size} values")
    if len(wanted) == 1:
        return _flatten(input, 1)
    return input._with(input.treatment.fixed(input.value, Reshape(wanted)))


def _filled_in(sizes: tuple[int, ...], total: int) -> tuple[int, ...] | None:
    """``sizes`` with a -1 worked out, or None when they do not hold ``total`` values."""
    known = math.prod(n for n in sizes if n != -1)
    if -1 in sizes and known > 0:
        sizes = tuple(total // known if n == -1 else n for n in sizes)
    return sizes if sizes and math.prod(sizes) == total else None


def _add(input: Any, other: Any, *, alpha: float = 1.0) -> Carried[Any]:
    _is_carried("add", input, other)
    right = other.value if alpha == 1 else other.treatment.scale(other.value, float(alpha))
    return Carried(input.treatment.add(input.value, right), input.treatment)


def _sub(input: Any, other: Any, *, alpha: float = 1.0) -> Carried[Any]:
    return _add(input, other, alpha=-alpha)


def _mul(input: Any, other: Any) -> Carried[Any]:
    carried, factor = (input, other) if isinstance(input, Carried) else (other, input)
    if not isinstance(factor, Real):
        _refuse("mul", f"the factor is a {type(factor).__name__}, expected a number")
    return carried._with(carried.treatment.scale(carried.value, float(factor)))


def _div(input: Any, other: Any) -> Carried[Any]:
    if not isinstance(other, Real) or other == 0:
        _refuse("div", f"the divisor is {other!r}, expected a number other than 0")
    return _mul(input, 1.0 / float(other))


def _neg(input: Carried[V]) -> Carried[V]:
    return -input


def _cat(tensors: Sequence[Carried[V]], dim: int = 0) -> Carried[V]:
    _is_carried("cat", *tensors)
    first = tensors[0]
    if dim % first.dim() == 0:
        _refuse("cat", "it would join batches")
    return first._with(first.treatment.join([t.value for t in tensors], dim))


_OF_A_SAMPLE = "its statistics are each sample's own, so none are left to fold; use BatchNorm"
_WHY_NOT = {
    "group_norm": _OF_A_SAMPLE,
    "layer_norm": _OF_A_SAMPLE,
    "instance_norm": _OF_A_SAMPLE,
    "pad": "give the padding, which is of zeros, to the convolution or the pool behind it",
    "conv1d": "frames are (C, H, W); use Conv2d on a height of 1",
    "conv_transpose2d": "no operation of a Network enlarges an image",
    "interpolate": "no operation of a Network enlarges an image",
    "dropout2d": "use Dropout",
    "mean": "use AvgPool2d, or AdaptiveAvgPool2d(1) for the mean over an image",
    "stack": "it would add an axis; add the branches up, or join them with cat",
}
"""Reasons by torch's name of a function, where the list of those that are known is not enough."""

_HANDLERS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.max_pool2d: _max_pool2d,
    F.relu: _relu,
    torch.relu: _relu,
    F.dropout: _dropout,
    torch.flatten: _flatten,
    torch.reshape: _reshape,
    torch.add: _add,
    torch.sub: _sub,
    torch.mul: _mul,
    torch.div: _div,
    torch.neg: _neg,
    torch.cat: _cat,
    Tensor.add: _add,
    Tensor.sub: _sub,
    Tensor.mul: _mul,
}
