"""Files for nir 1.0.4, and what sinabs 3.1.3, which is held to it, makes of them.

nir 1.0.4 knows no v_reset and no CubaLI. sinabs passes over nodes that it does not know without a
word, Linear among them, so every linear map is written as an Affine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from ...errors import RequestError
from ...files import canonical_json
from ...network.graph import graph_hash
from ...network.graph_file import read_graph
from ...network.grid import LayerCertificate, certificate
from ...network.layers import (
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    SumPool,
)
from ...network.neurons import IF, CubaLI, Sum, is_driven, parameters
from ...network.nir_file import CONTRACT
from ._nir_portable import sum_pool

VERSION = "1.0.4"


def hold(network: Network) -> None:
    """Raise RequestError (E_UNSUPPORTED) for what no file of that version can say."""
    for layer in network.layers:
        reason = ""
        if isinstance(layer.neuron, CubaLI):
            reason = "it has no CubaLI"
        elif parameters(layer.neuron).get("v_reset", np.zeros(())).any():
            reason = "it has no v_reset, and this one is not 0"
        if reason:
            raise RequestError(
                "E_UNSUPPORTED", f"nir {VERSION} cannot hold layer '{layer.name}': {reason}"
            )


def rewrite(path: Path) -> None:
    """Bring a file of ours to the older form, in place; its contract goes on to fit its graph."""
    with h5py.File(path, "r+") as file:
        file["version"][()] = VERSION
        for node in file["node/nodes"].values():
            if "v_reset" in node:
                del node["v_reset"]
            if node["type"].asstr()[()] == "Linear":
                node["type"][()] = "Affine"
                node["bias"] = np.zeros(len(node["weight"]), "<f4")
    digest = graph_hash(read_graph(path))
    with h5py.File(path, "r+") as file:
        text = file[f"node/metadata/{CONTRACT}"]
        text[()] = canonical_json({**json.loads(text.asstr()[()]), "graph_sha256": digest})


# --- what sinabs makes of it ---


def _operation(operation: Operation) -> str:
    match operation:
        case Dense() | Flatten():
            return ""
        case Conv(groups=groups):
            return "has groups, which it does not read" if groups > 1 else ""
        case SumPool():
            return sum_pool(operation)
    return f"is a {type(operation).__name__}, which it cannot read or passes over"


def _neuron(network: Network, layer: Layer, sums: LayerCertificate | None) -> str:
    """Why an IF of sinabs fires otherwise: it subtracts the threshold as often as it fits in, and
    keeps the membrane above minus the threshold."""
    neuron, contract = layer.neuron, network.contract
    if isinstance(neuron, Sum):
        return ""  # its numbers may differ in the last place, which is no spike
    if not isinstance(neuron, IF):
        return f"{type(neuron).__name__}: it has no such neuron, or takes its tau for steps"
    if is_driven(neuron):
        return "it ignores the input gain"
    if contract.reset != "subtract" or contract.late_reset:
        return "it resets by subtraction in the step of the spike"
    if contract.compare != "ge":
        return "it fires at the threshold, not above it"
    if sums is None or sums.problem:
        return "its sums are exact on no grid"
    least = float(neuron.threshold.min())
    if sums.positive > least:
        return f"a current of up to {sums.positive:.6g} makes it fire several times in one step"
    if sums.negative * contract.steps > least:
        return "it holds membranes at minus the threshold, here they can fall below"
    return ""


def sinabs_differs(network: Network) -> Mapping[str, str]:
    """Per layer why the spikes of sinabs may differ, for inputs and steps of the contract.

    Where nothing is said of any layer, every spike is the same.
    """
    found = {}
    sums = {line.layer: line for line in certificate(network)}
    for layer in network.layers:
        reasons = [
            f"'{operation.name}' {reason}"
            for synapse in layer.synapses
            for operation in synapse.operations
            if (reason := _operation(operation))
        ]
        if len(layer.synapses) > 1:
            reasons.append("it may run a layer before all that feed it")
        if reason := _neuron(network, layer, sums.get(layer.name)):
            reasons.append(reason)
        if reasons:
            found[layer.name] = "; ".join(reasons)
    return found
