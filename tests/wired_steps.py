"""Runs a wiring in plain numpy, time step by time step, from what is written of it.

Everything is as Lava holds it: images (W, H, C), kernels turned round, samples one after another in
one stretch of time. A connection sends what it computed one time step ago; only the layers' own
resets and the clearing of buffers part one sample from the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from snnpipe.network.trace import Trace, pack
from snnpipe.network.wires import Wiring

Arrays = Mapping[str, np.ndarray]


def axes_turned(values: np.ndarray) -> np.ndarray:
    return values.transpose(range(values.ndim)[::-1])


def convolved(entry: dict[str, Any], weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(W, H, C) through a true convolution."""
    (px, py), (sx, sy), (dx, dy) = (entry[name] for name in ("padding", "stride", "dilation"))
    out_channels, kx, ky, part = weight.shape
    padded = np.pad(x, ((px, px), (py, py), (0, 0)))
    gives = entry["gives"][::-1]
    out = np.zeros(gives, np.int64)
    for o in range(out_channels):
        first = o // (out_channels // entry["groups"]) * part
        for a in range(kx):
            for b in range(ky):
                ends = a * dx + sx * gives[0], b * dy + sy * gives[1]
                seen = padded[a * dx : ends[0] : sx, b * dy : ends[1] : sy, first : first + part]
                seen = seen[: gives[0], : gives[1]]
                out[:, :, o] += seen @ weight[o, kx - 1 - a, ky - 1 - b].astype(np.int64)
    return out


def mapped(entry: dict[str, Any], weight: np.ndarray, x: np.ndarray, to: list[int]) -> np.ndarray:
    """What one time step's values (Lava's axes) bring to a target of shape ``to``."""
    if not entry["graded"]:
        x = x != 0
    x = axes_turned(x).reshape(entry["enters"]).astype(np.int64)
    if entry["kind"] == "dense":
        total = weight.astype(np.int64) @ x
    else:
        total = axes_turned(convolved(entry, weight, axes_turned(x)))
        assert abs(total).max(initial=0) < 2**23
    exponent = entry["exponent"]
    total = total << exponent if exponent >= 0 else total >> -exponent
    return axes_turned(total.reshape(to))


class Neurons:
    """Loihi's integers, written down once more."""

    def __init__(self, facts: dict[str, Any], arrays: Arrays, key: str, steps: int) -> None:
        self.facts, self.steps = facts, steps
        self.du, self.dv, self.vth, mantissa = (
            arrays[f"{key}.{name}"].astype(np.int64) for name in ("du", "dv", "vth", "bias_mant")
        )
        self.bias = mantissa * 2 ** facts["bias_exp"]
        self.u = np.zeros(facts["shape"][::-1], np.int64)
        self.v = np.zeros_like(self.u)

    def step(self, t: int, a_in: np.ndarray) -> np.ndarray:
        if not self.facts["relay"] and (t - 1 - self.facts["depth"]) % self.steps == 0:
            self.u[...] = self.v[...] = 0

        def decayed(values: np.ndarray, factor: np.ndarray) -> np.ndarray:
            return np.sign(values) * (abs(values) * factor // 4096)

        self.u = decayed(self.u, 4095 - self.du) + 64 * a_in
        self.u = np.where(self.u > 2**23, self.u - 2**24, self.u)
        self.v = decayed(self.v, 4096 - self.dv) + self.u + self.bias
        self.v = np.clip(self.v, 1 - 2**23, 2**23 - 1)
        fired = self.v > 64 * self.vth
        self.v[fired] = 0
        return fired


def run_wired(wired: Wiring, sent: Arrays, steps: int, samples: int, clear: bool = True) -> Trace:
    """The spikes and outputs of all samples; ``clear`` False leaves buffers as they are."""
    plan, arrays = wired.plan()
    plan = json.loads(json.dumps(plan))
    populations = {
        facts["name"]: Neurons(facts, arrays, f"population{n}", steps)
        for n, facts in enumerate(plan["populations"])
    }
    shapes = {facts["name"]: facts["shape"] for facts in plan["populations"]}
    readout = plan["readout"]
    if readout:
        shapes[readout["name"]] = readout["shape"]
    connections = [
        (entry, arrays[f"connection{n}.weight"]) for n, entry in enumerate(plan["connections"])
    ]
    buffers = [
        [np.zeros(shapes[entry["target"]][::-1], np.int64)] * (1 + entry["delay"])
        for entry, _ in connections
    ]
    seen: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
    for t in range(1, samples * steps + plan["depth"] + 1):
        a_in = {name: np.zeros(shape[::-1], np.int64) for name, shape in shapes.items()}
        for (entry, _), line in zip(connections, buffers, strict=True):
            a_in[entry["target"]] = a_in[entry["target"]] + line.pop(0)
        values: dict[str, np.ndarray] = {}
        for stream in plan["streams"]:
            sample, step = divmod(t - 1 - stream["lag"], steps)
            value = np.zeros(stream["shape"], np.int64)
            if 0 <= sample < samples:
                value = sent[stream["name"]][step, sample].astype(np.int64)
            values[stream["name"]] = axes_turned(value)
            if stream["layer"]:
                a_in[stream["layer"]] = a_in[stream["layer"]] + values[stream["name"]]
        for name, neurons in populations.items():
            values[name] = neurons.step(t, a_in[name])
            seen[name].append(axes_turned(values[name]))
        if readout:
            total = axes_turned(a_in[readout["name"]])
            seen[readout["name"]].append((total << 6) + arrays["readout.bias"])
        for n, (entry, weight) in enumerate(connections):
            source = values[entry["source"]]
            buffers[n].append(mapped(entry, weight, source, shapes[entry["target"]]))
            if clear and any((t - end) % steps == 0 for end in entry["cleared"]):
                buffers[n] = [np.zeros_like(line) for line in buffers[n]]
    return _trace(plan, seen, steps, samples)


def _trace(plan: dict[str, Any], seen: dict[str, Any], steps: int, samples: int) -> Trace:
    ends = [facts for facts in plan["populations"] if not facts["relay"]]
    by_step = {}
    for facts in [*ends, *([plan["readout"]] if plan["readout"] else [])]:
        part = np.stack(seen[facts["name"]][facts["depth"] :][: samples * steps])
        by_step[facts["name"]] = part.reshape(samples, steps, *facts["shape"]).swapaxes(0, 1)
    spikes = {facts["name"]: pack(by_step[facts["name"]]) for facts in ends}
    outputs = by_step[plan["output"]].reshape(steps, samples, -1).astype(np.int32)
    fired = {name: np.count_nonzero(values, axis=1) for name, values in by_step.items()}
    return Trace(outputs, fired, spikes)
