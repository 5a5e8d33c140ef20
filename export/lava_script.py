"""What makes the Lava artefact stand alone: ``run_lava.py``, its ``plan.json``, ``weights.npz``."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..files import canonical_json
from ..network.contract import Integer
from ..network.layers import Conv, Dense, Flatten, Layer, Network, Operation
from ..network.loihi import host_factor
from ..network.trace import UNREADABLE
from ..network.wiring import wiring

SCRIPT, PLAN, WEIGHTS = "run_lava.py", "plan.json", "weights.npz"


@dataclass(frozen=True)
class Script:
    """The file's name; None where there is none, and remarks that say why."""

    file: str | None
    remarks: tuple[str, ...] = ()


def write_script(network: Network, folder: Path) -> Script:
    """Write the script of an integer network into its artefact folder.

    Where Lava's processes cannot be wired to it the folder stays as it is.
    """
    try:
        wired = wiring(network)
        hosts, arrays = _hosts(network)
    except RequestError as error:
        return Script(None, (f"there is no {SCRIPT}: {error.message}",))
    plan, own = wired.plan()
    contract = network.contract
    plan |= {
        "host": hosts,
        "steps": contract.steps,
        "input_scale": contract.input_scale,
        "input_coding": contract.input_coding,
    }
    (folder / PLAN).write_text(canonical_json(plan) + "\n", encoding="utf-8")
    with (folder / WEIGHTS).open("wb") as stream:
        kept: dict[str, Any] = own | arrays
        np.savez_compressed(stream, **kept)
    shutil.copyfile(Path(__file__).with_name(SCRIPT), folder / SCRIPT)
    return Script(SCRIPT)


def changed_file(network: Network, folder: Path) -> str:
    """The first file of the script in an artefact folder that is not what `write_script` makes of
    the network; empty when all are."""
    with tempfile.TemporaryDirectory() as made:
        fresh = Path(made)
        write_script(network, fresh)
        for name in (SCRIPT, PLAN, WEIGHTS):
            own, found = fresh / name, folder / name
            if own.is_file() != found.is_file():
                return name
            if own.is_file() and not (_same_arrays if name == WEIGHTS else _same_bytes)(own, found):
                return name
    return ""


def _same_arrays(a: Path, b: Path) -> bool:
    """Whether two .npz hold the same arrays; how they are packed may differ."""
    try:
        with np.load(a) as ours, np.load(b) as theirs:
            names = set(ours.files)
            return names == set(theirs.files) and all(_same(ours[n], theirs[n]) for n in names)
    except UNREADABLE:
        return False


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


def _same_bytes(a: Path, b: Path) -> bool:
    """Whether two files hold the same bytes."""
    return a.read_bytes() == b.read_bytes()


def _hosts(network: Network) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """The layers whose current the script computes from the input, and their arrays.

    Raises RequestError (E_UNSUPPORTED) for a chain that the script does not know.
    """
    arithmetic = network.contract.arithmetic
    hosts: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    if not isinstance(arithmetic, Integer):
        return hosts, arrays
    for name, scale in arithmetic.host_scale.items():
        layer, exponent = network.layer(name), arithmetic.bias_exponents[name]
        maps = []
        for n, synapse in enumerate(layer.synapses):
            linear = _linear(layer, synapse.operations)
            bias = linear.bias
            arrays[f"host.{name}.{n}.weight"] = linear.weight
            arrays[f"host.{name}.{n}.bias"] = (
                np.zeros(len(linear.weight), np.float32) if bias is None else bias
            )
            maps.append(_facts(linear))
        factor = host_factor(scale, exponent)
        hosts.append(
            {"layer": name, "shape": layer.shape, "maps": maps, "factor": factor,
             "exponent": exponent}
        )  # fmt: skip
    return hosts, arrays


def _linear(layer: Layer, operations: tuple[Operation, ...]) -> Dense | Conv:
    for operation in operations:
        if not isinstance(operation, Dense | Conv | Flatten):
            raise RequestError(
                "E_UNSUPPORTED",
                f"the host's current of layer '{layer.name}' passes '{operation.name}' "
                f"({type(operation).__name__}); expected one Dense or Conv",
            )
    linear = [op for op in operations if isinstance(op, Dense | Conv)]
    if len(linear) != 1:
        raise RequestError(
            "E_UNSUPPORTED",
            f"the host's current of layer '{layer.name}' passes {len(linear)} weighted maps; "
            "expected one Dense or Conv",
        )
    return linear[0]


def _facts(linear: Dense | Conv) -> dict[str, Any]:
    if isinstance(linear, Dense):
        return {"kind": "dense"}
    own = ("stride", "padding", "dilation", "groups")
    return {"kind": "conv", **{name: getattr(linear, name) for name in own}}
