"""From a trained torch module to a Network, batch normalisation folded.

The module is called once on a carried value that records instead of computing, so whatever a
learning rule can train is seen as it runs: no tracing, no hooks, no guessing from attribute names.
Folding is done in float64 and rounded to float32 once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import RequestError
from ..network import layers as net
from ..network.contract import Contract, InputCoding
from ..network.layers import Layer, Network, Shape, Synapse
from ..network.neurons import IF, LIF, CubaLIF, Neuron, Sum
from ..network.shapes import shape_after
from ..train import modules, operations
from ..train.carried import Carried
from ..train.spiking import Population, Spiking, number
from .fold import Wide, averages_as_sums, fold, obstacle

INPUT, READOUT = "input", "readout"


def _refuse(name: str, why: str) -> NoReturn:
    raise RequestError("E_LIFT", f"'{name}' has no place in a Network: {why}")


@dataclass(frozen=True, eq=False)
class Drive:
    """``gain`` times a current plus ``shift``, both (C,), as the module ``name`` asked for it."""

    gain: Wide
    shift: Wide
    name: str

    def then(self, gain: Wide, shift: Wide) -> Drive:
        """Another factor and offset behind it."""
        return replace(self, gain=self.gain * gain, shift=self.shift * gain + shift)

    def on(self, neuron: LIF, shape: Shape) -> LIF:
        """Neurons of ``shape`` that apply it to their current."""
        view = (-1, *[1] * (len(shape) - 1))
        gain, leak = (_single(part.reshape(view)) for part in (self.gain, self.shift))
        return replace(neuron, gain=gain, leak=leak)


@dataclass(frozen=True)
class Pending:
    """A value on its way into a layer: the synapses that will feed it, and its shape.

    What a layer emits is one synapse without operations. Weights are still float64.
    """

    synapses: tuple[Synapse, ...]
    shape: Shape
    drive: Drive | None = None

    @property
    def emitted(self) -> bool:
        """Whether it is just what one source emits."""
        return len(self.synapses) == 1 and not self.synapses[0].operations

    def scaled(self, gain: Wide, shift: Wide, name: str) -> Pending:
        """``gain`` times it plus ``shift``, both (C,): in its weights, or still to be done."""
        if self.drive is not None:
            return replace(self, drive=self.drive.then(gain, shift))
        if len(self.synapses) > 1 or obstacle(self.synapses):
            return replace(self, drive=Drive(gain, shift, name))
        return replace(self, synapses=fold(self.synapses, gain, shift))

    @property
    def weighted(self) -> bool:
        """Whether it is a sum, or has passed weights, so that no weights may follow."""
        weights = (net.Dense, net.Conv)
        return len(self.synapses) > 1 or any(
            isinstance(op, weights) for s in self.synapses for op in s.operations
        )


def _wide(tensor: Tensor) -> Any:
    """A parameter in float64; the dataclasses of `network.layers` get it as float32 at the end."""
    return tensor.detach().cpu().double().numpy()


def _neuron(spiking: Spiking, shape: Shape) -> Neuron:
    """Nothing is rounded here: learned decays stand on a grid, thresholds in float32."""
    threshold = _single(spiking.thresholds(torch.empty((1, *shape))))
    if spiking.synaptic_decay is not None:
        decays = _single(number(spiking.synaptic_decay)), _single(number(spiking.decay))
        return CubaLIF(*decays, threshold)
    decay = number(spiking.decay)
    return IF(threshold) if decay == 1.0 else LIF(_single(decay), threshold)


def _single(array: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)


class Recorder:
    """A `Treatment` that builds layers out of the calls it sees."""

    def __init__(self, model: nn.Module) -> None:
        self.layers: list[Layer] = []
        self._taken: set[str] = {INPUT}
        self._sums: dict[Pending, Pending] = {}
        self._plain: dict[Pending, Pending] = {}
        self._drives: dict[str, Drive] = {}
        self._owners = {
            id(parameter): name.rpartition(".")[0] or "weights"
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        self._modules = {id(module): name for name, module in model.named_modules()}

    def _name(self, wanted: str) -> str:
        """``wanted``, or with a number behind it when it is taken (a module used twice)."""
        name, number = wanted or "neurons", 1
        while name in self._taken:
            number += 1
            name = f"{wanted}.{number}"
        self._taken.add(name)
        return name

    def _folded(self, value: Pending) -> Pending:
        """A value with nothing left to do to it; refused where no weights could do it."""
        if (drive := value.drive) is None:
            return value
        if found := obstacle(value.synapses):
            _refuse(
                drive.name,
                f"it follows {found}, which has no weights to fold it into, nor do neurons of the "
                "kind LIF follow it",
            )
        if value not in self._plain:  # once, so that all users share it
            synapses = fold(value.synapses, drive.gain, drive.shift)
            self._plain[value] = Pending(synapses, value.shape)
        return self._plain[value]

    def _layer(self, name: str, neuron: Neuron, value: Pending) -> Pending:
        self.layers.append(Layer(name, neuron, value.shape, value.synapses))
        return Pending((Synapse(name),), value.shape)

    def _chained(self, value: Pending, operation: net.Operation) -> Pending:
        """Append an operation; branches, or weights behind weights, meet in a `Sum` first."""
        value = self._folded(value)
        if len(value.synapses) > 1 or (
            value.weighted and isinstance(operation, (net.Dense, net.Conv))
        ):
            value = self._sum(value, operation.name, len(self.layers))
        (synapse,) = value.synapses
        longer = replace(synapse, operations=(*synapse.operations, operation))
        return Pending((longer,), shape_after(operation, value.shape))

    def _sum(self, value: Pending, user: str, place: int) -> Pending:
        """A value as the `Sum` that all its users share; the first user finds name and place."""
        if value not in self._sums:
            name = self._name(f"{user}.sum")
            self.layers.insert(place, Layer(name, Sum(), value.shape, value.synapses))
            self._sums[value] = Pending((Synapse(name),), value.shape)
        return self._sums[value]

    def _shared(self, value: Pending) -> Pending:
        """A value as its `Sum` where a layer has taken it already, so that no weights stand twice.

        A pre-activation block fires on a current and adds to it.
        """
        taken = (n for n, layer in enumerate(self.layers) if layer.synapses == value.synapses)
        place = next(taken, None)
        if place is not None and value.weighted and value not in self._sums:
            user = self.layers.pop(place)
            total = self._sum(value, user.name, place)
            self.layers.insert(place + 1, replace(user, synapses=total.synapses))
        return self._sums.get(value, value)

    def finished(self) -> Iterator[Layer]:
        """The layers: what neurons were left to do is done by weights where these feed nobody else,
        and an operation that stands twice (on a current that two populations take, or one of which
        takes it normalised) has a number behind its name."""
        seen: set[str] = set()

        def named(operation: net.Operation) -> net.Operation:
            if operation.name in seen:
                return replace(operation, name=self._name(operation.name))
            seen.add(operation.name)
            return operation

        for layer in map(self._driven, self.layers):
            synapses = [
                replace(s, operations=tuple(map(named, s.operations))) for s in layer.synapses
            ]
            yield replace(layer, synapses=tuple(synapses))

    def _driven(self, layer: Layer) -> Layer:
        drive = self._drives.get(layer.name)
        if drive is None or not isinstance(layer.neuron, LIF):
            return layer
        if obstacle(layer.synapses):
            return replace(layer, neuron=drive.on(layer.neuron, layer.shape))
        return replace(layer, synapses=fold(layer.synapses, drive.gain, drive.shift))

    def example(self, value: Pending) -> Tensor:
        """A meta tensor (1, *shape)."""
        return torch.empty((1, *value.shape), device="meta")

    def _weights(self, operation: operations.LinearMap) -> net.Dense | net.Conv:
        name = self._name(self._owners.get(id(operation.weight), "weights"))
        weight = _wide(operation.weight)
        bias = None if operation.bias is None else _wide(operation.bias)
        if isinstance(operation, operations.Affine):
            return net.Dense(name, weight, bias)
        return net.Conv(
            name,
            weight,
            bias,
            operation.stride,
            operation.padding,
            operation.dilation,
            operation.groups,
        )

    def linear(self, value: Pending, operation: operations.LinearMap) -> Pending:
        """Dense or Conv, named after the module that owns the weight."""
        return self._chained(value, self._weights(operation))

    def normalise(self, value: Pending, norm: operations.Norm) -> Pending:
        """Fold y = (x - mean) * gain + shift into the weights before it, or the neurons behind."""
        if norm.running_mean is None or norm.running_var is None or norm.training:
            _refuse("batch_norm", "it has no running statistics to fold, or is in training mode")
        name = self._owners.get(id(norm.weight), "batch_norm")
        gain = 1.0 / np.sqrt(_wide(norm.running_var) + norm.eps)
        if norm.weight is not None:
            gain = gain * _wide(norm.weight)
        shift = -_wide(norm.running_mean) * gain
        if norm.bias is not None:
            shift = shift + _wide(norm.bias)
        return value.scaled(gain, shift, name)

    def fire(self, value: Pending, module: Population) -> Pending:
        """A spiking layer, named after its module."""
        name, neuron = self._named(module), _neuron(module.spiking, value.shape)
        if value.drive is not None and isinstance(neuron, LIF):
            self._drives[name] = value.drive
            return self._layer(name, neuron, value)
        return self._layer(name, neuron, self._folded(value))

    def recur(self, value: Pending, module: Population, weights: operations.LinearMap) -> Pending:
        """A spiking layer, named after its neurons, that is also its own source."""
        name = self._named(module)
        own = Synapse(name, (self._weights(weights),))
        fed = Pending((*self._folded(value).synapses, own), value.shape)
        return self._layer(name, _neuron(module.spiking, value.shape), fed)

    def _named(self, module: Population) -> str:
        return self._name(self._modules.get(id(module), "neurons"))

    def fixed(self, value: Pending, operation: operations.FixedMap) -> Pending:
        """Pooling and flatten; other changes of shape have no operation."""
        match operation:
            case operations.Flatten(start=start, end=end):
                flatten = net.Flatten(self._name("flatten"), start, end)
                return self._chained(value, flatten)
            case operations.AveragePool() | operations.SumPool():
                average = isinstance(operation, operations.AveragePool)
                form = net.AvgPool if average else net.SumPool
                windows = (operation.kernel, operation.stride, operation.padding)
                return self._chained(value, form(self._name("pool"), *windows))
            case operations.Reshape(shape=shape):
                _refuse("reshape", f"to {list(shape)}; only flatten is known downstream")

    def scale(self, value: Pending, factor: float | Tensor) -> Pending:
        """Fold a constant factor into the weights before it, or the neurons behind."""
        if isinstance(factor, Tensor):
            _refuse("mul", "a factor that is a tensor; only numbers can be folded")
        channels = value.shape[0]
        return value.scaled(np.full(channels, float(factor)), np.zeros(channels), "mul")

    def add(self, a: Pending, b: Pending) -> Pending:
        """Branches meet: their synapses feed the same layer."""
        if a.shape != b.shape:
            _refuse("add", f"shapes {list(a.shape)} and {list(b.shape)} differ")
        left, right = self._shared(self._folded(a)), self._shared(self._folded(b))
        return Pending((*left.synapses, *right.synapses), a.shape)

    def join(self, values: Sequence[Pending], axis: int) -> Pending:  # noqa: ARG002 - the protocol
        """Refused."""
        _refuse("cat", "a layer has one shape; sum the branches instead of joining them")

    def replace(
        self,
        value: Pending,  # noqa: ARG002 - the protocol
        function: Callable[[Tensor], Tensor],  # noqa: ARG002 - the protocol
        name: str,
    ) -> Pending:
        """Refused."""
        if name == "relu":
            _refuse(name, "an ANN teaches, a Network fires; lift a net of spiking neurons")
        _refuse(name, "it is not linear; use a strided convolution or a sum pool")


@dataclass(frozen=True)
class Setting:
    """What a module does not say about itself: its input, and how long it was trained to run."""

    shape: Shape
    steps: int
    input_scale: float
    input_levels: int
    input_coding: InputCoding
    producer: str = field(default="")


def _agreed(model: nn.Module, what: str, values: Iterable[str]) -> str:
    found = sorted(set(values))
    if len(found) > 1:
        _refuse(type(model).__name__, f"its neurons differ in {what}: {' and '.join(found)}")
    return found[0] if found else {"reset": "zero", "compare": "gt"}[what]


def lift(model: nn.Module, setting: Setting) -> Network:
    """A trained module in evaluation to a float32 Network, batch normalisation folded.

    Layers carry the neuron modules' path names, operations those of the modules that own the
    weights. The output is averaged over time as in training: a `Sum` layer, or the last spiking
    layer. Raises RequestError (E_LIFT, E_MODEL) naming what has no place in a Network.
    """
    if model.training:
        _refuse(type(model).__name__, "it is in training mode; call .eval() first")
    recorder = Recorder(model)
    start = Pending((Synapse(INPUT),), setting.shape)
    with torch.no_grad():
        result = model(Carried(start, recorder))
    if not isinstance(result, Carried) or not isinstance(result.value, Pending):
        _refuse(type(model).__name__, f"it returned a {type(result).__name__}")
    end: Pending = recorder._folded(result.value)
    if not end.emitted or end.synapses[0].source == INPUT:
        end = recorder._layer(recorder._name(READOUT), Sum(), end)
    spiking = [module.spiking for module in modules.neurons(model).values()]
    contract = Contract(
        steps=setting.steps,
        compare="ge" if _agreed(model, "compare", (s.compare for s in spiking)) == "ge" else "gt",
        reset="subtract"
        if _agreed(model, "reset", (s.reset for s in spiking)) == "subtract"
        else "value",
        input_scale=setting.input_scale,
        input_levels=setting.input_levels,
        input_coding=setting.input_coding,
        producer=setting.producer,
    )
    layers = tuple(_narrow(layer) for layer in recorder.finished())
    return Network(INPUT, setting.shape, layers, end.synapses[0].source, contract)


def _narrow(layer: Layer) -> Layer:
    """Weights and biases rounded to float32, once."""

    def narrow(operation: net.Operation) -> net.Operation:
        if not isinstance(operation, (net.Dense, net.Conv)):
            return operation
        if not all(
            math.isfinite(float(np.abs(part).max(initial=0.0)))
            for part in (operation.weight, operation.bias)
            if part is not None
        ):
            _refuse(operation.name, "its weights are not finite; the training has diverged")
        bias = None if operation.bias is None else _single(operation.bias)
        return replace(operation, weight=_single(operation.weight), bias=bias)

    synapses = tuple(
        replace(s, operations=tuple(map(narrow, averages_as_sums(s).operations)))
        for s in layer.synapses
    )
    return replace(layer, synapses=synapses)
