"""An integer network as a graph of Lava's processes, whose every connection takes one time step.

The reference lets a value cross all layers in one step of a sample. Lava sends what a connection
computed one step ago, so a layer works ``depth`` time steps behind the input, and samples follow
each other through the layers like trains. For this graph to give the reference's spikes

- a connection from s to t that the sample's clock says takes ``m`` steps (a delay, one more if it
  is recurrent) must take ``depth[t] - depth[s] + m`` time steps, 1 or more. The least depths that
  allow it are found first; steps that are missing then are made up by relays (a connection of
  weight 2 into neurons with threshold 1 and no memory, exact for spikes) or a `DelayDense`;
- a layer starts every sample anew at its own time, at step ``depth + 1`` of the first one;
- what is under way for ``m`` steps would reach the next sample: those ``m`` time steps are kept in
  buffers of their own, which are cleared at the end of the steps whose spikes would do so. What
  only makes up depth belongs to its own sample and is never cleared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .check import check
from .contract import Integer
from .dynamics import WEIGHT_SHIFT, IntegerCell
from .integer_sums import host_biases, neuron_bias
from .lava_form import LONGEST, as_conv, check_expressible, only_map, refused
from .layers import (
    Dense,
    Layer,
    Network,
    Shape,
    Synapse,
)
from .neurons import Sum
from .shapes import shape_after
from .wires import Connection, Ints, Population, Readout, Stream, Wiring

_PRODUCTS = 2**31
_FIELD = 127
"""Lava keeps strides, paddings, spans of kernels and numbers of groups in int8."""


def wiring(network: Network) -> Wiring:
    """Lava's processes for an integer network.

    Raises what `check` raises at level integer, and RequestError (E_UNSUPPORTED, E_RANGE) naming
    the layer, what Lava cannot express and what to do.
    """
    check(network, "integer")
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        raise TypeError("level integer lets no other arithmetic pass")
    check_expressible(network, arithmetic)
    for layer in network.layers:
        if layer.name in arithmetic.host_scale:
            _host_layer(layer, arithmetic.bias_exponents[layer.name])
    return _Wires(network, arithmetic).wired()


def _host_layer(layer: Layer, exponent: int) -> None:
    """The host's current enters its neurons as a spike's weight does."""
    if isinstance(layer.neuron, Sum):
        raise refused(layer, "the host would compute all of this read-out")
    if exponent < WEIGHT_SHIFT:
        raise refused(
            layer,
            f"its current comes from the host in units of 2^{exponent}, and a current enters a "
            f"neuron of Lava in units of 2^{WEIGHT_SHIFT}; use a bias exponent of 6 or 7",
        )


def _depths(network: Network, arithmetic: Integer) -> dict[str, int]:
    """How many time steps every layer works behind the input, as few as can be."""
    host = arithmetic.host_scale
    depth = {layer.name: 0 if layer.name in host else 1 for layer in network.layers}
    behind = [
        (synapse.source, layer, 1 - network.lateness(layer, synapse))
        for layer in network.layers
        for synapse in layer.synapses
        if synapse.source != network.input
    ]
    moved: Layer | None = network.layers[0]
    for _ in range(len(network.layers) + 1):
        moved = None
        for source, layer, steps in behind:
            if depth[source] + steps > depth[layer.name]:
                depth[layer.name], moved = depth[source] + steps, layer
        if moved is None:
            return depth
    raise refused(
        network.layers[0] if moved is None else moved,
        "it is on a loop, or behind one, that has fewer steps than synapses, and each synapse of "
        "Lava takes a step; give the loop's recurrent synapse delays, or leave all but one synapse "
        "out of it",
    )


@dataclass(frozen=True, eq=False)
class _Map:
    """A synapse's linear map, in the fields of a `Connection`."""

    fields: dict[str, Any]

    @property
    def dense(self) -> bool:
        return bool(self.fields["kind"] == "dense")


def _identity(count: int, weight: int) -> _Map:
    """Every value times ``weight``: a convolution of one number over one long row."""
    row = (1, 1, count)
    kernel = np.full((1, 1, 1, 1), weight, np.int64)
    return _Map({"kind": "conv", "weight": kernel, "enters": row, "gives": row})


def _map(network: Network, layer: Layer, synapse: Synapse, arithmetic: Integer) -> _Map:
    operation, enters = only_map(network, layer, synapse)
    if operation is None:
        return _identity(int(np.prod(enters)), 1)
    exponent = arithmetic.weight_exponents.get(operation.name, 0)
    if isinstance(operation, Dense):
        fields: dict[str, Any] = {"kind": "dense", "weight": _whole(operation.weight)}
        fields |= {"enters": enters, "gives": shape_after(operation, enters), "exponent": exponent}
        return _Map(fields)
    conv = as_conv(layer, operation, enters)
    if exponent:
        raise refused(layer, f"convolutions of Lava have no exponent; put that of '{conv.name}' "
                      "into its weights")  # fmt: skip
    for kernel, stride, padding, dilation in zip(
        conv.weight.shape[2:], conv.stride, conv.padding, conv.dilation, strict=True
    ):
        if max(stride, 2 * padding, dilation * (kernel - 1) + 1, conv.groups) > _FIELD:
            raise refused(
                layer,
                f"'{conv.name}' has kernel {kernel}, stride {stride}, padding {padding}, dilation "
                f"{dilation} and {conv.groups} groups; Lava computes with them in 8 bits, expected "
                f"spans of at most {_FIELD}",
                "E_RANGE",
            )
    return _Map(
        {
            "kind": "conv",
            "weight": _whole(conv.weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)),
            "enters": enters,
            "gives": shape_after(conv, enters),
            "stride": conv.stride[::-1],
            "padding": conv.padding[::-1],
            "dilation": conv.dilation[::-1],
            "groups": conv.groups,
        }
    )


def _whole(values: NDArray[Any]) -> Ints:
    whole: Ints = np.rint(values).astype(np.int64)
    return whole


def _spread(values: Any, shape: Shape) -> Ints:
    """One number where all are equal, else one per neuron."""
    array = np.asarray(values, np.int64)
    if (array == array.flat[0]).all():
        return np.asarray(array.flat[0], np.int64)
    return np.broadcast_to(array, shape)


class _Wires:
    """Collects the processes of a network."""

    def __init__(self, network: Network, arithmetic: Integer) -> None:
        self._network, self._arithmetic = network, arithmetic
        self._depth = _depths(network, arithmetic)
        self._streams: dict[str, Stream] = {}
        self._populations: dict[str, Population] = {}
        self._connections: list[Connection] = []
        self._largest = network.contract.input_scale * network.contract.input_levels

    def wired(self) -> Wiring:
        readout = None
        for layer in self._network.layers:  # before the relays, which stand behind them
            if isinstance(layer.neuron, Sum):
                bias = neuron_bias(self._network, layer)
                readout = Readout(layer.name, layer.shape, self._depth[layer.name], bias)
            else:
                self._populations[layer.name] = self._population(layer)
        for layer in self._network.layers:
            if layer.name in self._arithmetic.host_scale:
                stream = Stream(f"{layer.name}+current", layer.shape, 0, 0, layer.name)
                self._streams[stream.name] = stream
                continue
            for synapse in layer.synapses:
                self._synapse(layer, synapse)
        self._check_joined()
        return Wiring(
            tuple(self._streams.values()),
            tuple(self._populations.values()),
            tuple(self._connections),
            readout,
            self._network.output,
        )

    def _population(self, layer: Layer) -> Population:
        cell = IntegerCell.of(layer.neuron, self._network.contract, _whole)
        exponent, bias, du = 0, np.zeros((), np.int64), cell.du
        if layer.name in self._arithmetic.host_scale:
            du = 4095  # the host's current stands for a bias, which passes no synaptic filter
        elif layer.name in self._arithmetic.bias_exponents:
            exponent = self._arithmetic.bias_exponents[layer.name]
            bias = neuron_bias(self._network, layer) >> exponent
        du, dv, vth, mantissa = (
            _spread(values, layer.shape) for values in (du, cell.dv, cell.threshold, bias)
        )
        depth = self._depth[layer.name]
        return Population(layer.name, layer.shape, depth, du, dv, vth, mantissa, exponent)

    def _synapse(self, layer: Layer, synapse: Synapse) -> None:
        network, depth = self._network, self._depth[layer.name]
        memory = network.lateness(layer, synapse)
        linear = _map(network, layer, synapse, self._arithmetic)
        if memory > LONGEST:
            raise refused(
                layer,
                f"values of '{synapse.source}' come {memory} steps late; expected {LONGEST} at "
                "most",
                "E_RANGE",
            )
        if synapse.source == network.input:
            rows = abs(linear.fields["weight"]).reshape(len(linear.fields["weight"]), -1)
            largest = float(rows.sum(axis=1).max()) * self._largest
            if largest >= _PRODUCTS:
                raise refused(
                    layer,
                    f"its products with the input can add up to {largest:.0f}, and Lava adds in 32 "
                    "bits; use fewer levels of input",
                    "E_RANGE",
                )
            source = self._stream(depth - 1, memory)
            self._connect(source, layer.name, linear, graded=self._largest > 1)
            return
        missing = depth - self._depth[synapse.source] - 1  # time steps that only make up depth
        clean = max(missing + (memory > 0), 0)
        source = self._relayed(synapse.source, clean)
        if not memory:
            self._connect(source, layer.name, linear)
            return
        held = missing + memory - clean
        last = self._depth[synapse.source] + clean  # the source's, of a sample
        # A source deeper than its target still works on a sample when the target begins the next.
        ends = tuple(last - early for early in range(max(1, -missing)))
        if linear.dense:
            self._connect(source, layer.name, linear, delay=held, cleared=ends)
            return
        held_by = source
        for place in range(1, held + 1):
            held_by = self._relay(held_by, f"{source}~{place}", last + place, ends)
        self._connect(held_by, layer.name, linear, cleared=ends)

    def _stream(self, lag: int, delay: int) -> str:
        name = f"{self._network.input}+{lag}" + (f"-{delay}" if delay else "")
        shape = self._network.input_shape
        self._streams.setdefault(name, Stream(name, shape, lag, delay))
        return name

    def _relayed(self, source: str, steps: int) -> str:
        """The spikes of a layer ``steps`` time steps late; relays are shared."""
        name = source
        for step in range(1, steps + 1):
            name = self._relay(name, f"{source}+{step}", self._depth[source] + step)
        return name

    def _relay(self, source: str, name: str, depth: int, cleared: tuple[int, ...] = ()) -> str:
        if name not in self._populations:
            shape = self._populations[source].shape
            forgetful, one, none = (np.asarray(n, np.int64) for n in (4095, 1, 0))
            relay = Population(name, shape, depth, forgetful, forgetful, one, none, relay=True)
            self._populations[name] = relay
            self._connect(source, name, _identity(int(np.prod(shape)), 2), cleared=cleared)
        return name

    def _check_joined(self) -> None:
        """Lava runs what hangs together, and would leave the rest out without a word."""
        links = [(c.source, c.target) for c in self._connections]
        links += [(s.name, s.layer) for s in self._streams.values() if s.layer]
        found = {self._network.output}
        while more := {end for link in links if found & {*link} for end in link} - found:
            found |= more
        for layer in self._network.layers:
            if layer.name not in found:
                raise refused(layer, "nothing connects it with the output; leave it out")

    def _connect(self, source: str, target: str, linear: _Map, **more: Any) -> None:
        self._connections.append(Connection(source, target, **linear.fields, **more))


def streams(
    network: Network, wired: Wiring, frames: NDArray[np.float32]
) -> Mapping[str, NDArray[np.int32]]:
    """What each stream sends, by the sample's own clock: (T, B, *shape), with its delay.

    ``frames`` (T, B, *input_shape). Raises RequestError (E_INPUT) for numbers that are not whole,
    or beyond the contract's, where Lava takes them as they are.
    """
    found: dict[str, NDArray[np.int32]] = {}
    for stream in wired.streams:
        if stream.layer:
            bias = host_biases(network, network.layer(stream.layer), frames)
            found[stream.name] = (bias >> WEIGHT_SHIFT).astype(np.int32)
            continue
        contract = network.contract
        largest = contract.input_scale * contract.input_levels
        if not (frames == np.rint(frames)).all() or frames.min() < 0 or frames.max() > largest:
            raise RequestError(
                "E_INPUT",
                f"the input holds values from {frames.min():g} to {frames.max():g}; Lava takes "
                f"whole numbers, and the contract says 0 to {largest:g}",
            )
        values = np.zeros(frames.shape, np.int32)
        values[stream.delay :] = frames[: max(len(frames) - stream.delay, 0)]
        found[stream.name] = values
    return found
