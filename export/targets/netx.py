"""Lava's network exchange format: a chain of integer layers as a .net file, for lava-dl's netx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import RequestError
from ...network.bounds import step_bounds, term_sums
from ...network.check_integer import TABLE as INTEGERS
from ...network.contract import Integer
from ...network.dynamics import WEIGHT_SHIFT
from ...network.integer_sums import host_biases, neuron_bias
from ...network.layers import AvgPool, Conv, Dense, Layer, Network, SumPool
from ...network.net_file import BIAS_EXPONENT, IMAGE_SCALE, NetReading, read_net
from ...network.net_layers import LAST_THRESHOLD
from ...network.neurons import Sum
from ...network.simulate import simulate
from ...network.support import Table, refuse_unsupported
from ..net_fields import WEIGHT_UNIT, Fields, neuron_fields, refuse, weighted_fields

_POOL = "the format's pools are run by nobody; bring them into the weights behind them"
FILE = "network.net"
TABLE: Table = {**INTEGERS, SumPool: _POOL, AvgPool: _POOL}
TRIED = 2
"""Random samples on which the file is run beside the network, spike for spike."""


class _Written:
    """The file's layers as they come up, and what is to be said of them."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.layers: list[Fields] = []
        self.names: dict[str, str] = {}
        self.remarks: list[str] = []
        self.rounded: list[str] = []
        self.reading = NetReading(steps=network.contract.steps)

    def add(self, fields: Fields, name: str = "") -> None:
        """One layer; its name in the network, if it has one."""
        if name:
            self.names[str(len(self.layers))] = name
        self.layers.append(fields)


class NetxTarget:
    """Writes ``network.net``, integer networks only: export the folder of a 'lava' artefact.

    Option ``biases``: exact refuses what is no whole weight unit, rounded rounds it. The manifest
    says what each layer is called there, and how the file is to be driven.
    """

    name = "netx"
    table = TABLE
    options: Mapping[str, tuple[str, ...]] = {"biases": ("exact", "rounded")}

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED), naming the layer, for what no .net file can say."""
        _layers(network, rounded=True)

    def write(
        self, network: Network, folder: Path, options: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Write the file; equal networks give equal bytes. It is read back before it counts.

        Raises RequestError (E_UNSUPPORTED) naming layer and reason.
        """
        rounded = options["biases"] == "rounded"
        written = _layers(network, rounded)
        with h5py.File(folder / FILE, "w", libver="earliest") as file:
            for index, fields in enumerate(written.layers):
                _put(file.create_group(f"layer/{index}"), fields)
            file["simulation/Ts"] = np.int64(1)
            file["simulation/tSample"] = np.int64(network.contract.steps)
        back = read_net(folder / FILE, written.reading)
        if not written.rounded:
            _hold(network, back.network, written)
        return {
            "file": FILE,
            "layers": written.names,
            "read_with": {
                "drive": written.reading.drive,
                "coding": written.reading.coding,
                "levels": written.reading.levels,
            },
            "biases_rounded": written.rounded,
            "remarks": [*written.remarks, *back.remarks],
        }


def _hold(network: Network, back: Network, written: _Written) -> None:
    """What was written must run as what it was written from, on a few random inputs."""
    contract, steps = network.contract, min(network.contract.steps, 32)
    events = (steps,) if contract.input_coding == "events" else ()
    shape = (*events, TRIED, *network.input_shape)
    drawn = np.random.default_rng(0).integers(0, contract.input_levels + 1, shape)
    frames = drawn.astype(np.float32) * np.float32(contract.input_scale)
    given = frames
    if written.reading.drive == "mantissas":
        bias = host_biases(network, network.layers[0], frames if events else frames[np.newaxis])
        mantissas = (bias >> BIAS_EXPONENT).astype(np.float32)
        given = mantissas if events else mantissas[0]
    ours, theirs = simulate(network, frames, steps), simulate(back, given, steps)
    named = {f"layer{index}": name for index, name in written.names.items()}
    same = (ours.outputs == theirs.outputs).all() and all(
        (ours.spikes[named[name]] == bits).all() for name, bits in theirs.spikes.items()
    )
    if not same:
        raise RequestError("E_CONTRACT", "what is written as a .net file runs as another network")


def _put(group: Any, fields: Fields) -> None:
    """One layer's data sets, in the types that slayer writes."""
    for name, value in fields.items():
        if isinstance(value, dict):
            _put(group.create_group(name), value)
        elif name == "type" and group.name.count("/") == 2:
            group.create_dataset(name, (1,), "S10", [value.encode()])
        elif isinstance(value, str | bool | np.ndarray):
            group[name] = value
        else:
            group[name] = np.asarray(value, np.int64)


def _layers(network: Network, rounded: bool) -> _Written:
    """All layers of the file. Raises RequestError (E_UNSUPPORTED)."""
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        raise RequestError(
            "E_UNSUPPORTED",
            f"target 'netx' writes integer networks, this one's arithmetic is {arithmetic.kind}; "
            "export it with --target lava, then the folder artefacts/lava with --target netx",
        )
    refuse_unsupported(network, "target 'netx' cannot write", TABLE)
    contract = network.contract
    if (contract.compare, contract.reset) != ("gt", "value"):
        raise RequestError(
            "E_UNSUPPORTED",
            f"a .net file fires above the threshold (gt) and resets to 0 (value); this network's "
            f"contract says {contract.compare} and {contract.reset}",
        )
    written = _Written(network)
    source, rest = network.input, list(network.layers)
    if rest[0].name in arithmetic.host_scale:
        written.add(_input_neurons(written, rest[0], arithmetic), rest[0].name)
        source = rest.pop(0).name
    else:
        written.add({"type": "input", "shape": network.input_shape})
        _driven_by_input(written)
    for layer in rest:
        if layer.name in arithmetic.host_scale:
            raise refuse(layer, "the host computes its current, and it is not the first")
        if isinstance(layer.neuron, Sum):
            _read_out(network, layer, arithmetic)
        fields, flattened = weighted_fields(network, layer, source, arithmetic, rounded)
        if flattened:
            size = int(np.prod(network.shape_of(source)))
            written.add({"type": "flatten", "shape": (size,)})
        written.add(fields, layer.name)
        if (neuron_bias(network, layer) % WEIGHT_UNIT).any():
            written.rounded.append(layer.name)
            written.remarks.append(f"layer '{layer.name}': its biases are rounded to whole units")
        source = layer.name
    if source != network.output:
        raise refuse(network.layer(source), f"'{network.output}' is the output, not this last one")
    return written


def _driven_by_input(written: _Written) -> None:
    contract = written.network.contract
    if contract.input_scale != 1:
        raise RequestError(
            "E_UNSUPPORTED",
            f"a .net file takes its input as whole numbers; this network's input counts in "
            f"{contract.input_scale:g}",
        )
    coding, levels = contract.input_coding, contract.input_levels
    written.reading = replace(written.reading, coding=coding, levels=levels)
    if levels > 1:
        bits = levels.bit_length()
        written.remarks.append(
            f"its input is graded, 0 to {levels}: hand netx input_message_bits={bits}"
        )


def _input_neurons(written: _Written, layer: Layer, arithmetic: Integer) -> Fields:
    """The first layer as input neurons, driven by biases that the host computes."""
    exponent = arithmetic.bias_exponents[layer.name]
    if exponent != BIAS_EXPONENT:
        raise refuse(
            layer,
            f"the host writes its current as biases with the exponent {exponent}, the format's is "
            f"{BIAS_EXPONENT}; quantise it with the first layer on the chip",
        )
    fields: Fields = {"type": "input", "shape": layer.shape}
    affine = _affine(written.network, layer) if arithmetic.host_scale[layer.name] == 1 else None
    scale = written.network.contract.input_scale
    if affine is not None and scale == IMAGE_SCALE:
        fields |= {"weight": np.array(affine[:1], "f4"), "bias": np.array(affine[1:], "f4")}
    else:
        written.reading = replace(written.reading, drive="mantissas")
        written.remarks.append(
            f"layer '{layer.name}' is written as input neurons: the host computes their bias "
            "mantissas, the file does not say how"
        )
    return {**fields, "neuron": neuron_fields(layer)}


def _affine(network: Network, layer: Layer) -> tuple[float, float] | None:
    """Weight and bias of every pixel, where a layer does no more to the input than that."""
    if len(layer.synapses) != 1 or len(layer.synapses[0].operations) != 1:
        return None
    (operation,) = layer.synapses[0].operations
    if not isinstance(operation, Conv | Dense) or layer.shape != network.input_shape:
        return None
    weight, bias = operation.weight, operation.bias
    if isinstance(operation, Conv):
        plain = weight.shape[1:] == (1, 1, 1) and operation.stride == (1, 1)
        single = weight.ravel() if plain and operation.padding == (0, 0) else None
    else:
        single = np.diagonal(weight)
        single = None if (weight != np.diag(single)).any() else single
    added = np.zeros(len(weight), np.float32) if bias is None else bias
    if single is None or (single != single[0]).any() or (added != added[0]).any():
        return None
    return float(single[0]), float(added[0])


def _read_out(network: Network, layer: Layer, arithmetic: Integer) -> None:
    """A sum is written as a neuron that adds up; it must not reach its threshold."""
    if layer.name != network.output:
        raise refuse(layer, "it passes its sum on, and the format's layers send spikes")
    bounds = step_bounds(arithmetic, layer, term_sums(network)[layer.name])
    reach = float(bounds[0].max()) * network.contract.steps
    if reach > LAST_THRESHOLD << WEIGHT_SHIFT:
        raise refuse(
            layer,
            f"as a read-out it adds up to {reach:.9g}, and the neuron that stands for it fires "
            f"above {LAST_THRESHOLD << WEIGHT_SHIFT}",
        )


PLUGIN = NetxTarget()
