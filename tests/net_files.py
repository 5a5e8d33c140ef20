"""`.net` files as slayer writes them, and a plain reading of their dynamics, written a second time.

`plain_run` stands beside `network.net_file` and shares nothing with it: h5py as it is, a loop for
each step and neuron group, the integer step of Lava's `PyLifModelBitAcc` spelled out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CUBA = {"type": "CUBA", "iDecay": 4096, "vDecay": 1024, "vThMant": 25, "refDelay": 1}


def neuron(**changes: Any) -> dict[str, Any]:
    return {**CUBA, **changes}


def write_net(
    path: Path, layers: Sequence[Mapping[str, Any]], steps: int | None = 9, **root: Any
) -> Path:
    """A file with these layers; a dictionary is a group, ``type`` a text of ten bytes."""
    with h5py.File(path, "w") as file:
        for index, layer in enumerate(layers):
            group = file.create_group(f"layer/{index}")
            for name, value in layer.items():
                if name == "type" and isinstance(value, str):
                    group.create_dataset(name, (1,), "S10", [value.encode()])
                elif isinstance(value, Mapping):
                    for key, inner in value.items():
                        group[f"{name}/{key}"] = inner
                else:
                    group[name] = value
        if steps is not None:
            file["simulation/Ts"] = 1
            file["simulation/tSample"] = steps
        for name, value in root.items():
            file[name] = value
    return path


def f4(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _times(x: np.ndarray, factor: int) -> np.ndarray:
    return np.sign(x) * ((np.abs(x) * factor) // 4096)


def _step(state: list[Any], total: Any, bias: Any, own: Mapping[str, int], fires_at: bool) -> Any:
    u = _times(state[0], 4096 - own["iDecay"]) + 64 * total
    v = _times(state[1], 4096 - own["vDecay"]) + u + bias
    v = np.clip(v, -(2**23) + 1, 2**23 - 1)
    threshold = 64 * own["vThMant"]
    spikes = v >= threshold if fires_at else v > threshold
    state[:] = [u, np.where(spikes, 0, v)]
    return spikes.astype(np.int64)


def _correlate(
    x: np.ndarray, w: np.ndarray, stride: Any, pad: Any, dilate: Any, groups: int
) -> Any:
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2 * pad[0], width + 2 * pad[1]), np.int64)
    padded[:, pad[0] : pad[0] + height, pad[1] : pad[1] + width] = x
    spans = [dilate[i] * (w.shape[2 + i] - 1) + 1 for i in (0, 1)]
    sizes = [(padded.shape[1 + i] - spans[i]) // stride[i] + 1 for i in (0, 1)]
    out = np.zeros((len(w), *sizes), np.int64)
    for o, y, z in np.ndindex(*out.shape):
        first = o // (len(w) // groups) * w.shape[1]
        for c, i, j in np.ndindex(*w.shape[1:]):
            at = (first + c, y * stride[0] + i * dilate[0], z * stride[1] + j * dilate[1])
            out[o, y, z] += w[o, c, i, j] * padded[at]
    return out


def _single(layer: Any, name: str, usual: Any) -> Any:
    if name not in layer:
        return usual
    value = np.asarray(layer[name][()]).ravel()
    return (int(value[0]), int(value[-1]))


def _type(layer: Any) -> str:
    return bytes(np.asarray(layer["type"][()]).ravel()[0]).decode()


def plain_run(path: Path, x: np.ndarray, fires_at: bool = False) -> list[np.ndarray]:
    """Spikes (T, N) of every layer with neurons for one sample: ``x`` (T, *shape) of spikes, or the
    bias mantissas (*shape) of input neurons; of a layer without neuron its sums in 1/64."""
    found: list[np.ndarray] = []
    with h5py.File(path, "r") as file:
        steps = int(file["simulation/tSample"][()])
        incoming: list[np.ndarray] = list(x) if x.ndim else []
        for index in range(len(file["layer"])):
            layer = file[f"layer/{index}"]
            kind = _type(layer)
            if kind == "flatten" or (kind == "input" and "neuron" not in layer):
                continue
            keys = ("iDecay", "vDecay", "vThMant")
            own = {k: int(layer["neuron"][k][()]) for k in keys} if "neuron" in layer else None
            state: list[Any] = [0, 0]
            emitted: list[np.ndarray] = []
            for t in range(steps):
                total, bias = _inputs(layer, kind, incoming, emitted, t, x)
                if own is None:
                    emitted.append(64 * total + bias)
                else:
                    emitted.append(_step(state, total, bias, own, fires_at))
            found.append(np.stack([values.ravel() for values in emitted]))
            incoming = emitted
    return found


def _inputs(layer: Any, kind: str, incoming: Any, emitted: Any, t: int, x: np.ndarray) -> Any:
    """Synaptic sum and bias of one step, in weight and in membrane units."""
    if kind == "input":
        return np.zeros(x.shape, np.int64), 64 * x
    weight = np.asarray(layer["weight"][()]).astype(np.int64)
    out = int(np.prod(layer["shape"][()])) if kind != "conv" else len(weight)
    bias = np.zeros(out, np.int64)
    if "bias" in layer:
        bias = bias + np.asarray(layer["bias"][()]).astype(np.int64).ravel()
    if kind == "conv":
        weight = weight.reshape(weight.shape[:4])
        options = [_single(layer, k, u) for k, u in (("stride", (1, 1)), ("padding", (0, 0)),
                                                     ("dilation", (1, 1)))]  # fmt: skip
        groups = int(layer["groups"][()]) if "groups" in layer else 1
        total = _correlate(incoming[t], weight, *options, groups)
        return total, 64 * bias.reshape(-1, 1, 1)
    weight = weight.reshape(out, -1)
    total = np.zeros(out, np.int64)
    delay = _delays(layer, weight)
    for o, i in np.ndindex(*weight.shape):
        when = t - int(delay[o, i])
        if when >= 0:
            total[o] += weight[o, i] * int(np.asarray(incoming[when]).ravel()[i])
    if kind == "dense_rec" and t:
        total += np.asarray(layer["weight_rec"][()]).astype(np.int64) @ emitted[t - 1]
    return total, 64 * bias


def _delays(layer: Any, weight: np.ndarray) -> np.ndarray:
    if "delay" not in layer:
        return np.zeros(weight.shape)
    delay = np.asarray(layer["delay"][()])
    if delay.shape == weight.shape[:1]:
        delay = delay[:, None]
    return np.broadcast_to(delay, weight.shape)
