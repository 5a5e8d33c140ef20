"""Recordings that were made elsewhere, as files: of all layers or of some, in any axis order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from ..network.axes import arranged, orders
from ..network.layers import Layer, Network
from ..network.neurons import Spiking
from ..network.trace import UNREADABLE, Packed, pack

PACKED = "spikes."
"""In front of a layer's name in the files that `snnpipe run --save` writes."""
OUTPUTS = "outputs"


@dataclass(frozen=True, eq=False)
class Recording:
    """What somebody recorded of a network.

    spikes: per spiking layer the bits (T, B, ceil(N/8)); values: the outputs of a read-out that
    does not spike, (T, B, K), under its layer's name. axes: how each array was read. All have one
    T and one B.
    """

    source: str
    spikes: Mapping[str, Packed]
    values: Mapping[str, NDArray[Any]]
    axes: Mapping[str, str]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them, by layer."""
        return {**self.spikes, **self.values}

    @property
    def steps(self) -> int:
        """T."""
        return int(next(iter(self.arrays.values())).shape[0])

    @property
    def samples(self) -> int:
        """B."""
        return int(next(iter(self.arrays.values())).shape[1])


def read_recording(
    path: Path, network: Network, axes: str | None = None, layer: str | None = None
) -> Recording:
    """A recording of ``network``: an .npz, its arrays called as layers or as `snnpipe run --save`
    calls them, or an .npy of one layer, ``layer`` or else the output.

    ``axes``: letters of `network.axes`; None takes the usual order that fits, where one does.
    Raises RequestError: E_TRACE for what is no recording of this network, E_AXES for an axis order
    that does not fit or could be several.
    """
    try:
        return _recording(path, network, _arrays(path, network, layer), axes)
    except RequestError as error:
        raise RequestError(error.code, f"{path}: {error.message}") from error


def _arrays(path: Path, network: Network, layer: str | None) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name. Of an .npz none is unpacked before all names are known."""
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {layer or network.output: loaded}
            if layer is not None and layer not in loaded.files:
                raise RequestError("E_TRACE", f"no array is called '{layer}'")
            names = loaded.files if layer is None else [layer]
            for name in names:
                _layer_of(network, name)
            return {name: loaded[name] for name in names}
    except UNREADABLE as error:
        raise RequestError("E_TRACE", f"not a readable .npy or .npz ({error})") from error


def _recording(
    path: Path, network: Network, named: Mapping[str, NDArray[Any]], axes: str | None
) -> Recording:
    spikes: dict[str, Packed] = {}
    values: dict[str, NDArray[Any]] = {}
    read: dict[str, str] = {}
    if not named:
        raise RequestError("E_TRACE", "it holds no array")
    for name, array in named.items():
        layer = _layer_of(network, name)
        if array.dtype.kind not in "iufb" or not array.size:
            raise RequestError(
                "E_TRACE", f"'{name}' is {array.dtype} {list(array.shape)}; expected numbers"
            )
        if name == OUTPUTS and {layer.name, f"{PACKED}{layer.name}"} & named.keys():
            continue
        spiking = isinstance(layer.neuron, Spiking)
        if name == f"{PACKED}{layer.name}":
            spikes[layer.name] = _packed(layer, array)
            read[layer.name] = "tb and bits"
            continue
        ours = name == OUTPUTS and array.ndim == 3
        order = axes or ("tbn" if ours else _only(array, layer, name))
        whole = arranged(array, order, layer.shape)
        read[layer.name] = order
        if spiking:
            spikes[layer.name] = _bits(whole, name)
        else:
            values[layer.name] = whole.reshape(*whole.shape[:2], layer.size)
    found = Recording(path.name, spikes, values, read)
    shapes = {name: array.shape[:2] for name, array in found.arrays.items()}
    if len(set(shapes.values())) != 1:
        said = ", ".join(f"'{name}' {list(shape)}" for name, shape in shapes.items())
        raise RequestError("E_TRACE", f"steps and samples differ between its arrays: {said}")
    return found


def _layer_of(network: Network, name: str) -> Layer:
    if name == OUTPUTS:
        return network.layer(network.output)
    bare = name.removeprefix(PACKED)
    if bare not in network.by_name:
        raise RequestError(
            "E_TRACE",
            f"it holds '{name[:80]}', and no layer is called so{nearest(bare, network.by_name)}; "
            f"the layers are {', '.join(network.by_name)}",
        )
    layer = network.layer(bare)
    if not isinstance(layer.neuron, Spiking) and bare != network.output:
        raise RequestError("E_TRACE", f"layer '{bare}' has no spikes, and is not the output")
    return layer


def _only(array: NDArray[Any], layer: Layer, name: str) -> str:
    fits = orders(array, layer.shape)
    if len(fits) == 1:
        return fits[0]
    shapes = f"'{name}' has shape {list(array.shape)}, layer '{layer.name}' {list(layer.shape)}"
    if not fits:
        raise RequestError("E_AXES", f"{shapes}: no usual order of axes fits; name it")
    raise RequestError("E_AXES", f"{shapes}: it can be in the order {' or '.join(fits)}; name it")


def _bits(spikes: NDArray[Any], name: str) -> Packed:
    odd = (spikes != 0) & (spikes != 1)
    if odd.any():
        raise RequestError(
            "E_TRACE", f"'{name}' holds {spikes[odd].flat[0]}; expected spikes, 0 or 1"
        )
    return pack(spikes)


def _packed(layer: Layer, bits: NDArray[Any]) -> Packed:
    width = -(-layer.size // 8)
    spare = 8 * width - layer.size
    good = bits.dtype == np.uint8 and bits.ndim == 3 and bits.shape[2] == width
    if not good or (bits[..., -1] >> (8 - spare)).any():
        raise RequestError(
            "E_TRACE",
            f"'{PACKED}{layer.name}' is {bits.dtype} {list(bits.shape)}; expected bytes "
            f"[T, B, {width}] with a bit for each of {layer.size} neurons",
        )
    return bits
