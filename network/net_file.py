"""`.net` files, Lava's network exchange format, as integer networks.

The file's values are the truth of its training: they are run as they stand, in Loihi's integers.
Where lava-dl's own reader (netx) would run others, a remark says so. What the format leaves open
is a `NetReading`: how many steps, the comparison at the threshold, and what drives input neurons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import RequestError, nearest
from .check import check
from .contract import Compare, Contract, InputCoding, Integer
from .hdf5 import Limits, Tree, read_tree
from .layers import Conv, Delay, Dense, Flatten, Layer, Network, Operation, Shape, Synapse
from .loihi import MANTISSA_MAX
from .net_layers import LAST_THRESHOLD, MOST_STEPS, Group, NetLayer, Whole, parse_layer
from .net_remarks import netx_remarks
from .net_weights import BITS, clipped, fitted
from .neurons import IF, LIF, CubaLIF, Neuron, Sum

SEMANTICS: dict[str, Compare] = {"lava": "gt", "slayer": "ge"}
"""Readings of the threshold: Lava and the chip fire above it, slayer's papers at it."""
Drive = Literal["image", "mantissas"]

BIAS_EXPONENT = 6
"""Biases of the file are in weight units."""
FLAT_INPUT = 4096
"""Input neurons without an image: a diagonal matrix makes their currents."""
IMAGE_SCALE = 2.0**-8
"""What a level of an image is worth."""
SECONDS = 1e-3
"""A step of the file, in slayer's habit a millisecond."""


@dataclass(frozen=True)
class NetReading:
    """What a `.net` leaves open.

    ``steps``: None takes the file's. ``drive``: input neurons are given images (levels of 1/256,
    turned into biases by the file's weight and bias) or their bias mantissas. ``coding`` and
    ``levels``: of the input where there are no input neurons, a frame a step or one for all, and
    its largest value, 1 for spikes. ``layers``: how many of the file's, None for all.
    """

    semantics: str = "lava"
    steps: int | None = None
    drive: Drive = "image"
    coding: InputCoding = "events"
    levels: int = 1
    layers: int | None = None

    @property
    def compare(self) -> Compare:
        """How a membrane is held against its threshold; RequestError (E_SEMANTICS)."""
        if self.semantics not in SEMANTICS:
            raise RequestError(
                "E_SEMANTICS",
                f"a .net file is read under 'lava' (fires above the threshold) or 'slayer' (at or "
                f"above it), not '{self.semantics}'{nearest(self.semantics, SEMANTICS)}",
            )
        return SEMANTICS[self.semantics]


@dataclass(frozen=True)
class NetFile:
    """A file as a network, and what there is to say of it, a sentence each."""

    network: Network
    remarks: tuple[str, ...]


def read_net(
    path: Path, reading: NetReading | None = None, limits: Limits | None = None
) -> NetFile:
    """Read a `.net` file; every message begins with the file.

    Raises RequestError: what `read_tree` and `parse_layer` raise, E_STEPS without a number of
    steps, E_SHAPE and E_UNSUPPORTED for what does not fit together or cannot be run, E_RANGE for
    weights that a chip cannot hold, and the codes of `check` at level integer. What could overflow
    is let through: runs count it (`Trace.overflows`).
    """
    reading = reading or NetReading()
    limits = limits or Limits()
    tree = read_tree(path, limits)
    try:
        build = _Build(tree, reading, limits)
        network = build.network()
        check(network, "integer", overflow="count")
    except RequestError as error:
        raise RequestError(error.code, f"{path}: {error.message}") from error
    return NetFile(network, tuple(build.remarks))


def net_semantics(network: Network) -> dict[str, dict[str, str]]:
    """What is open in a `.net` file, and how each semantics settles it, as `Semantics.summary`."""
    return {
        name: {
            "dt": f"{network.contract.dt:g} s",
            "decay": "1 - d/4096",
            "input gain": "1",
            "fires at": "v > threshold" if compare == "gt" else "v >= threshold",
            "reset": "to 0",
            "spikes per step": "one",
            "cannot read": "",
        }
        for name, compare in SEMANTICS.items()
    }


def _layers(tree: Tree, most: int | None) -> Iterator[Group]:
    group = tree.get("layer")
    if not isinstance(group, dict) or not group:
        raise RequestError("E_PARAM", "/layer is missing or empty; expected groups 0, 1, 2, …")
    for index in range(min(len(group), most or len(group))):
        content = group.get(str(index))
        if not isinstance(content, dict):
            names = ", ".join(sorted(group)[:8])
            raise RequestError(
                "E_PARAM", f"/layer holds {names}; expected groups 0 to {len(group) - 1}"
            )
        yield Group(content, f"/layer/{index}")


@dataclass
class _Build:
    """Layers of a file to layers of a network, one after the other."""

    tree: Tree
    reading: NetReading
    limits: Limits
    remarks: list[str] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    flatten: bool = False
    """Whether the next synapse flattens."""
    biased: dict[str, int] = field(default_factory=dict)
    exponents: dict[str, int] = field(default_factory=dict)

    def network(self) -> Network:
        """All of it."""
        compare = self.reading.compare
        steps, dt = self._time()
        found = [parse_layer(n, g) for n, g in enumerate(_layers(self.tree, self.reading.layers))]
        for name in sorted(self.tree.keys() - {"layer", "simulation"}):
            self.remarks.append(f"/{name} is in the file, and nothing here reads it")
        parsed = []
        for layer, notes in found:
            parsed.append(layer)
            self.remarks += notes
        first, *rest = parsed
        host = first.kind == "input" and first.neuron is not None
        shape = self._input(first, host)
        for layer in rest if first.kind == "input" else parsed:
            self._add(layer, shape, last=layer is parsed[-1])
        if not self.layers:
            raise RequestError("E_LAYER", "the file has no neurons; expected one layer or more")
        image = self.reading.drive == "image"
        events = Contract(
            steps,
            dt,
            compare=compare,
            input_coding=self.reading.coding,
            input_levels=self.reading.levels,
        )
        direct = Contract(
            steps,
            dt,
            compare=compare,
            input_scale=IMAGE_SCALE if image else 1.0,
            input_levels=256 if image else MANTISSA_MAX,
        )
        own_host = {self.layers[0].name: 1} if host else {}
        arithmetic = Integer(BITS, self.biased, own_host, self.exponents)
        contract = (direct if host else events).with_arithmetic(arithmetic)
        return Network("input", shape, tuple(self.layers), self.layers[-1].name, contract)

    def _time(self) -> tuple[int, float]:
        found = self.tree.get("simulation", {})
        if not isinstance(found, dict):
            raise RequestError("E_PARAM", "/simulation is a data set; expected a group")
        group = Group(found, "/simulation")
        # A file without Ts runs at slayer's step; the step's length changes no spike.
        step = group.number("Ts", 1, MOST_STEPS, 1)
        steps = self.reading.steps
        if "tSample" in found:
            steps = steps or group.number("tSample", 1, MOST_STEPS) // step or 1
        if steps is None:
            raise RequestError("E_STEPS", "the file does not say how long to run: --steps T")
        return steps, SECONDS * step

    # --- the input ---

    def _input(self, first: NetLayer, host: bool) -> Shape:
        """Shape of the network's input; a layer of input neurons is added."""
        if host:
            self._input_neurons(first)
        elif self.reading.drive != "image":
            raise RequestError(
                "E_INPUT",
                f"--drive {self.reading.drive} is for files with input neurons; this one is driven "
                "by spikes",
            )
        if first.kind == "input":
            return first.shape
        weight = first.weight
        if weight is None or weight.ndim != 2:
            raise RequestError(
                "E_SHAPE",
                f"/layer/0 is of type '{first.kind}', so the shape of the input is open; expected "
                "an input or a dense layer in front",
            )
        return (weight.shape[1],)

    def _input_neurons(self, layer: NetLayer) -> None:
        operations: tuple[Operation, ...] = ()
        if self.reading.drive == "image":
            operations = (_affine(layer),)
            if any(value != int(value) for value in layer.image):
                self.remarks.append(
                    f"layer '{layer.name}' makes biases with the weight {layer.image[0]:g} and the "
                    f"bias {layer.image[1]:g}; netx cuts the fractions off"
                )
            scale, offset = layer.image
            if (reach := max(abs(offset), abs(scale + offset))) > MANTISSA_MAX:
                self.remarks.append(
                    f"layer '{layer.name}' makes biases of up to {reach:g} of an image; 13 bits "
                    f"hold {MANTISSA_MAX}, beyond it they are cut"
                )
        neuron = self._neuron(layer, last=False)
        self.biased[layer.name] = BIAS_EXPONENT
        self.layers.append(Layer(layer.name, neuron, layer.shape, (Synapse("input", operations),)))

    # --- the other layers ---

    def _add(self, layer: NetLayer, shape: Shape, last: bool) -> None:
        place = f"/layer/{layer.index}"
        source = self.layers[-1].name if self.layers else "input"
        before = self.layers[-1].shape if self.layers else shape
        if layer.kind == "input":
            raise RequestError("E_LAYER", f"{place} is an input; expected it in front")
        if layer.kind == "flatten":
            if np.prod(layer.shape) != np.prod(before):
                raise RequestError(
                    "E_SHAPE", f"{place}/shape is {list(layer.shape)}; {list(before)} comes in"
                )
            self.flatten = True
            return
        prefix: tuple[Operation, ...] = ()
        if layer.kind != "conv" and len(before) > 1:
            if not self.flatten and max(before) != np.prod(before):
                raise RequestError(
                    "E_SHAPE",
                    f"{place} is dense and is fed by the image {list(before)}; expected a flatten "
                    "layer in between",
                )
            prefix = (Flatten(f"{layer.name}.flatten"),)
        elif layer.kind == "conv" and self.flatten:
            raise RequestError("E_SHAPE", f"{place} is a convolution behind a flatten layer")
        self.flatten = False
        self.remarks += netx_remarks(layer, last)
        synapses = self._synapses(layer, source, prefix)
        own: Shape = layer.shape if layer.kind == "conv" else (int(np.prod(layer.shape)),)
        if layer.bias is not None and layer.bias.any():
            self.biased[layer.name] = BIAS_EXPONENT
        self.layers.append(Layer(layer.name, self._neuron(layer, last), own, tuple(synapses)))

    def _synapses(
        self, layer: NetLayer, source: str, prefix: tuple[Operation, ...]
    ) -> Iterator[Synapse]:
        """One synapse for each delay; the first carries the bias."""
        bias = layer.bias
        for delay, weight in self._by_delay(layer, layer.weight):
            yield self._synapse(layer, source, prefix, ("weight", delay), weight, bias)
            bias = None
        for delay, weight in self._by_delay(layer, layer.recurrent):
            yield self._synapse(layer, layer.name, (), ("weight_rec", delay), weight, None)

    def _synapse(
        self,
        layer: NetLayer,
        source: str,
        prefix: tuple[Operation, ...],
        part: tuple[str, int],
        weight: Whole,
        bias: Whole | None,
    ) -> Synapse:
        key, delay = part
        tag = f".{delay}" if delay else ""
        waiting = (Delay(f"{layer.name}.{key}.delay{tag}", delay),) if delay else ()
        start = tuple(replace(op, name=f"{op.name}{tag}") for op in prefix)
        linear = self._linear(layer, f"{layer.name}.{key}{tag}", key, weight, bias)
        return Synapse(source, (*waiting, *start, linear))

    def _by_delay(self, layer: NetLayer, weight: Whole | None) -> Iterator[tuple[int, Whole]]:
        """The weights that share a delay, the others zero."""
        if weight is None:
            return
        delay = np.zeros((1, 1), np.int64) if layer.delay is None else layer.delay
        try:
            full = np.broadcast_to(delay, weight.shape)
        except ValueError:
            raise RequestError(
                "E_SHAPE",
                f"/layer/{layer.index}/delay is one an input; of a loop's neurons it says nothing",
            ) from None
        delays = np.unique(delay)
        size = len(delays) * weight.size * 4
        if size > self.limits.dataset_bytes:
            raise RequestError(
                "E_LIMIT",
                f"/layer/{layer.index}/delay holds {len(delays)} different delays, which take "
                f"{size} bytes of weights; expected {self.limits.dataset_bytes} at most",
            )
        for steps in delays.tolist():
            yield steps, np.where(full == steps, weight, 0)

    def _linear(
        self, layer: NetLayer, name: str, key: str, weight: Whole, bias: Whole | None
    ) -> Dense | Conv:
        if layer.kind != "conv":  # of convolutions netx cuts nothing: Lava runs what chips cannot
            weight = clipped(weight)
        try:
            held, exponent = fitted(weight)
        except RequestError as error:
            raise RequestError(error.code, f"/layer/{layer.index}/{key} {error.message}") from error
        if exponent:
            self.exponents[name] = exponent
        own = None if bias is None else bias.astype(np.float32)
        if layer.kind != "conv":
            return Dense(name, held, own)
        return Conv(name, held, own, layer.stride, layer.padding, layer.dilation, layer.groups)

    def _neuron(self, layer: NetLayer, last: bool) -> Neuron:
        own = layer.neuron
        integrates = own is not None and (own.current_decay, own.decay) == (4096, 0)
        silent = own is not None and own.threshold >= LAST_THRESHOLD
        if own is None or (last and integrates and silent):
            if not last:
                raise RequestError(
                    "E_UNSUPPORTED",
                    f"/layer/{layer.index} has no neuron and feeds other layers: what they would "
                    "receive are graded values, which are not run",
                )
            return Sum()
        place = f"/layer/{layer.index}/neuron"
        if own.threshold > LAST_THRESHOLD:
            raise RequestError(
                "E_UNSUPPORTED",
                f"{place}/vThMant is {own.threshold}, above what a chip holds "
                f"({LAST_THRESHOLD}): it never fires, and is a read-out only as the last layer "
                "with iDecay 4096 and vDecay 0, or without a neuron",
            )
        threshold = np.array(own.threshold, np.float32)
        decay = np.array((4096 - own.decay) / 4096, np.float32)
        if own.current_decay == 4096:
            return LIF(decay, threshold) if own.decay else IF(threshold)
        if not own.decay or not own.current_decay:
            raise RequestError(
                "E_UNSUPPORTED",
                f"{place} has iDecay {own.current_decay} and vDecay {own.decay}: a current with a "
                "memory is run with decays of 1 or more",
            )
        return CubaLIF(np.array((4096 - own.current_decay) / 4096, np.float32), decay, threshold)


def _affine(layer: NetLayer) -> Operation:
    """weight*image + bias, the same for every pixel."""
    scale, offset = (np.float32(value) for value in layer.image)
    name = f"{layer.name}.image"
    if len(layer.shape) == 3:
        channels = layer.shape[0]
        weight = np.full((channels, 1, 1, 1), scale, np.float32)
        return Conv(name, weight, np.full(channels, offset, np.float32), groups=channels)
    if len(layer.shape) != 1 or layer.shape[0] > FLAT_INPUT:
        raise RequestError(
            "E_SHAPE",
            f"/layer/0/shape is {list(layer.shape)}; expected [C, H, W], or [N] up to {FLAT_INPUT}",
        )
    (size,) = layer.shape
    return Dense(name, np.eye(size, dtype=np.float32) * scale, np.full(size, offset, np.float32))
