"""A trained module with its batch normalisation taken into the weights before it, still trainable.

The module is called once on a carried value that notes which linear maps meet in which neurons.
That is also what whole weights need to know: maps that meet in one neuron share a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import RequestError
from . import operations
from .carried import Carried
from .spiking import Population

READOUT = "output"


@dataclass(frozen=True)
class Group:
    """The linear maps that meet in the neurons ``population``, or in the read-out ("").

    ``maps``: their modules' path names. ``shape``: of the neurons, channels first. ``host``: the
    maps see the input itself, which is no spikes. ``taps``: how many spikes of a pool's window meet
    each weight.
    """

    name: str
    population: str
    maps: tuple[str, ...]
    shape: tuple[int, ...]
    host: bool
    taps: int = 1


@dataclass(frozen=True, eq=False)
class _Flow:
    """A value on its way: one step's shape, whether it is the graded input or comes from it, the
    maps it has passed since the last neurons, and the sizes of pools, multiplied."""

    shape: tuple[int, ...]
    graded: bool
    maps: tuple[str, ...] = ()
    taps: int = 1


def _refuse(name: str, why: str) -> NoReturn:
    raise RequestError("E_QUANTISE", f"'{name}' cannot be trained in whole weights: {why}")


class _Survey:
    """A `Treatment` that notes groups and norms."""

    def __init__(self, model: nn.Module) -> None:
        self.groups: list[Group] = []
        self.norms: list[tuple[str, str]] = []
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._owners = {
            id(tensor): name.rpartition(".")[0]
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        self._met: set[str] = set()

    def example(self, value: _Flow) -> Tensor:
        """A meta tensor (1, *shape)."""
        return torch.empty((1, *value.shape), device="meta")

    def _owner(self, operation: operations.LinearMap) -> str:
        name = self._owners.get(id(operation.weight))
        if name is None:
            _refuse("weights", "they are computed, not a parameter of a module")
        if name in self._met:
            _refuse(name, "it is used twice; give each place its own weights")
        self._met.add(name)
        return name

    def linear(self, value: _Flow, operation: operations.LinearMap) -> _Flow:
        """A linear map of spikes, or of the input."""
        name = self._owner(operation)
        if value.maps:
            _refuse(name, f"it follows '{value.maps[-1]}' without neurons between")
        meta = replace(operation, weight=operation.weight.to("meta"), bias=None)
        shape = tuple(meta(self.example(value)).shape[1:])
        return replace(value, shape=shape, maps=(name,))

    def normalise(self, value: _Flow, norm: operations.Norm) -> _Flow:
        """To be folded into the one map before it."""
        name = self._owners.get(id(norm.running_mean), "")
        if not name:
            _refuse("batch_norm", "it has no running statistics to fold")
        if len(value.maps) != 1:
            _refuse(name, "it does not follow the weights of one linear map")
        self.norms.append((value.maps[0], name))
        return value

    def _meet(self, name: str, population: str, value: _Flow, own: tuple[str, ...] = ()) -> _Flow:
        if not value.maps and not value.graded:
            _refuse(name, "spikes reach it without weights")
        for other in self.groups:
            if both := set(other.maps) & set(value.maps):
                _refuse(both.pop(), f"its current goes to '{other.name}' and to '{name}'")
        maps = (*value.maps, *own)
        if own and value.graded:
            _refuse(name, "the host computes its current, which its own spikes would add to")
        self.groups.append(Group(name, population, maps, value.shape, value.graded, value.taps))
        return _Flow(value.shape, graded=False)

    def fire(self, value: _Flow, module: Population) -> _Flow:
        """Neurons."""
        name = self._modules[id(module)]
        return self._meet(name, name, value)

    def recur(self, value: _Flow, module: Population, weights: operations.LinearMap) -> _Flow:
        """Neurons that feed themselves."""
        name = self._modules[id(module)]
        return self._meet(name, name, value, (self._owner(weights),))

    def fixed(self, value: _Flow, operation: operations.FixedMap) -> _Flow:
        """Pools of spikes: with their divisor, whole weights stay on a grid of powers of two."""
        if isinstance(operation, operations.AveragePool | operations.SumPool):
            if value.maps and not value.graded:
                _refuse(value.maps[-1], "a pool behind it would add its weights up")
            count = operation.kernel[0] * operation.kernel[1]
            average = isinstance(operation, operations.AveragePool) and not value.graded
            if average and count & (count - 1):
                _refuse("avg_pool2d", f"it divides by {count}; expected a power of two, or a sum")
            value = replace(value, taps=value.taps * count)
        shape = tuple(operation(self.example(value)).shape[1:])
        return replace(value, shape=shape)

    def scale(self, value: _Flow, factor: float | Tensor) -> _Flow:  # noqa: ARG002
        """Refused: it would belong into the weights."""
        _refuse("mul", f"a factor of {factor} on a value; put it into the weights")

    def add(self, a: _Flow, b: _Flow) -> _Flow:
        """Branches meet; one without weights has a weight of 1, which lies on no scale."""
        for branch, other in ((a, b), (b, a)):
            if not branch.maps:
                met = f" of '{other.maps[-1]}'" if other.maps else ""
                _refuse("add", f"a branch without weights would have to share the scale{met}")
        if a.graded != b.graded:
            _refuse("add", "the graded input joins spikes")
        return replace(a, maps=(*a.maps, *b.maps), taps=max(a.taps, b.taps))

    def join(self, values: Sequence[_Flow], axis: int) -> _Flow:  # noqa: ARG002 - the protocol
        """Refused."""
        _refuse("cat", "a layer has one shape; sum the branches instead of joining them")

    def replace(self, value: _Flow, function: Callable[[Tensor], Tensor], name: str) -> _Flow:  # noqa: ARG002
        """Refused."""
        _refuse(name, "it is not linear; use a strided convolution or a sum pool")


def _survey(model: nn.Module, shape: tuple[int, ...], graded: bool) -> _Survey:
    survey, training = _Survey(model), model.training
    model.eval()  # no dropout
    with torch.no_grad():
        end = model(Carried(_Flow(shape, graded), survey)).value
    model.train(training)
    if end.maps:
        survey._meet(READOUT, "", end)
    return survey


def groups(model: nn.Module, shape: tuple[int, ...], graded: bool) -> tuple[Group, ...]:
    """Which linear maps of a module meet where, for inputs (C, H, W) = ``shape``.

    ``graded``: the input is an analog frame, no spikes or counts. Raises RequestError (E_QUANTISE)
    naming what whole weights cannot be trained through.
    """
    return tuple(_survey(model, shape, graded).groups)


@torch.no_grad()
def fold_norms(model: nn.Module, shape: tuple[int, ...], graded: bool) -> None:
    """Take every batch normalisation, with its running statistics, into the weights before it.

    In place: what remains of it is an identity; the linear map has a bias. In float64, rounded
    once. Raises as `groups`.
    """
    for map_name, norm_name in _survey(model, shape, graded).norms:
        norm, linear = model.get_submodule(norm_name), model.get_submodule(map_name)
        if isinstance(norm, _BatchNorm):
            _fold(linear, norm)
            above, _, last = norm_name.rpartition(".")
            setattr(model.get_submodule(above), last, nn.Identity())


def whole_form(model: nn.Module, shape: tuple[int, ...], graded: bool) -> None:
    """The form in which whole weights are trained and kept, in place: `fold_norms`, and a threshold
    for each channel, which keeps it with the weights."""
    fold_norms(model, shape, graded)
    for group in groups(model, shape, graded):
        if group.population:
            neurons: Any = model.get_submodule(group.population)
            if not isinstance(neurons.threshold, Tensor):
                thresholds = torch.full(group.shape[:1], neurons.threshold)
                del neurons.threshold
                neurons.register_buffer("threshold", thresholds)


def _fold(linear: Any, norm: _BatchNorm) -> None:
    """As one map: y = (w x + b - mean) * gain + shift."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        _refuse("batch_norm", "it has no running statistics to fold")
    gain = 1.0 / (variance.double() + norm.eps).sqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    bias = -mean.double() * gain
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    if linear.bias is not None:
        bias = bias + linear.bias.double() * gain
    weight = linear.weight.double() * gain.view(-1, *[1] * (linear.weight.dim() - 1))
    linear.weight.copy_(weight)
    linear.bias = nn.Parameter(bias.to(linear.weight))
