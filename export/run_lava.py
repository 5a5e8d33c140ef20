"""Run this folder's network on Lava, with nothing but Lava and numpy.

    python run_lava.py inputs.npy

``inputs.npy``: samples first; whole numbers are levels (bytes of an image, counts of events), which
the contract's scale is applied to. Prints a class per sample and writes ``spikes.npz``: per layer
uint8 (T, B, *shape), and ``outputs``, int64 (T, B, K). Needs lava-nc 0.10 (`snnpipe lava setup`
makes an environment for it). Reading a value from Lava takes some 30 us: name the layers that you
want, as in ``--layers lif3,lif4`` (or ``--layers none``), when there are many neurons.

``plan.json`` says which processes there are and how they are connected, ``weights.npz`` holds their
arrays. Each connection takes a time step, so a layer works ``depth`` steps behind the input;
samples follow each other, and each layer is reset when the next one arrives there.
"""

import argparse
import json
import multiprocessing
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core import run_configs
from lava.magma.core.run_conditions import RunSteps
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.reset import Reset
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF, LIFReset

Plan = dict[str, Any]
HERE = Path(__file__).parent


def frames_of(plan: Plan, inputs: Any) -> Any:
    """Stored inputs to float64 (T, B, *shape)."""
    frames = inputs * plan["input_scale"] if inputs.dtype.kind in "iu" else inputs
    frames = frames.astype(np.float64)
    if plan["input_coding"] == "events":
        return frames.swapaxes(0, 1)
    return np.repeat(frames[np.newaxis], plan["steps"], axis=0)


def host_current(host: Plan, weights: Plan, frames: Any) -> Any:
    """What the host computes for a layer: the current of (N, *shape) in units of 64."""
    total: Any = 0
    for n, entry in enumerate(host["maps"]):
        weight = weights[f"host.{host['layer']}.{n}.weight"].astype(np.float64)
        if entry["kind"] == "dense":
            current = frames.reshape(len(frames), -1) @ weight.T
        else:
            (sy, sx), (py, px), (dy, dx) = entry["stride"], entry["padding"], entry["dilation"]
            part, ky, kx = weight.shape[1:]
            x = np.pad(frames, ((0, 0), (0, 0), (py, py), (px, px)))
            span = ((ky - 1) * dy + 1, (kx - 1) * dx + 1)
            x = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
            x = x[:, :, ::sy, ::sx, ::dy, ::dx]  # (N, C, H, W, KH, KW)
            x = x.reshape(len(x), entry["groups"], part, *x.shape[2:])
            kernels = weight.reshape(entry["groups"], -1, part, ky, kx)
            current = np.einsum("ngchwyx,gocyx->ngohw", x, kernels, optimize=True)
        bias = weights[f"host.{host['layer']}.{n}.bias"].astype(np.float64)
        current = current.reshape(len(frames), len(bias), -1) + bias[:, None]
        total = total + current.reshape(len(frames), *host["shape"])
    mantissa = np.rint(total.astype(np.float32).astype(np.float64) * host["factor"])
    return np.clip(mantissa, -4096, 4095).astype(np.int64) << (host["exponent"] - 6)


def reordered(port: Any, have: list[int], want: list[int]) -> Any:
    """Lava's (W, H, C) of a shape (C, H, W) to that of another one with the same values."""
    if have == want:
        return port
    return port.transpose().reshape(tuple(want)).transpose()


def neurons(entry: Plan, weights: Plan, key: str, steps: int) -> Any:
    """A population; relays only pass spikes on, a step later, and are never reset."""
    given: Plan = {k: weights[f"{key}.{k}"].astype(int) for k in ("du", "dv", "vth", "bias_mant")}
    given = {k: v if v.ndim else int(v) for k, v in given.items()}
    given |= {"shape": tuple(entry["shape"][::-1]), "bias_exp": entry["bias_exp"]}
    if entry["relay"]:
        return LIF(**given)
    return LIFReset(reset_interval=steps, reset_offset=entry["depth"] + 1, **given)


def connection(entry: Plan, weight: Any, steps: int) -> Any:
    """A connection, with the resets that keep a sample's late spikes from the next one."""
    given: Plan = {"num_message_bits": 24 if entry["graded"] else 0}
    if entry["kind"] == "conv":
        for name in ("stride", "padding", "dilation"):
            given[name] = tuple(entry[name])
        given |= {"input_shape": tuple(entry["enters"][::-1]), "groups": entry["groups"]}
        made = Conv(weight=weight, **given)
    else:
        given["weight_exp"] = entry["exponent"]
        if entry["delay"]:
            made = DelayDense(weights=weight, delays=np.full(weight.shape, entry["delay"]), **given)
        else:
            made = Dense(weights=weight, **given)
    for end in {(end - 1) % steps for end in entry["cleared"]}:
        buffer = made.a_buf if entry["kind"] == "conv" else made.a_buff
        Reset(interval=steps, offset=end).connect_var(buffer)
    return made


def run(plan: Plan, weights: Plan, frames: Any, layers: list[str], config: Any) -> Plan:
    """Spikes per layer and outputs, each (T, B, ...)."""
    steps, samples = frames.shape[:2]
    total = steps * samples + plan["depth"]
    shapes: Plan = {}
    senders: Plan = {}
    receivers: Plan = {}
    sinks: Plan = {}
    for n, entry in enumerate(plan["populations"]):
        made = neurons(entry, weights, f"population{n}", steps)
        shapes[entry["name"]] = entry["shape"]
        senders[entry["name"]], receivers[entry["name"]] = made.s_out, made.a_in
        if not entry["relay"] and entry["name"] in {*layers, plan["output"]}:
            sinks[entry["name"]] = entry["depth"], made.s_out
    if entry := plan["readout"]:
        shapes[entry["name"]] = entry["shape"]
        sink = Sink(shape=tuple(entry["shape"][::-1]), buffer=total)
        receivers[entry["name"]], sinks[entry["name"]] = sink.a_in, (entry["depth"], sink)
    for entry in plan["streams"]:
        values = frames
        if entry["layer"]:
            host = next(host for host in plan["host"] if host["layer"] == entry["layer"])
            flat = frames.reshape(-1, *frames.shape[2:])
            values = host_current(host, weights, flat).reshape(steps, samples, *entry["shape"])
        values = np.concatenate([0 * values[: entry["delay"]], values])[:steps]
        data = np.zeros((*entry["shape"][::-1], total), int)
        in_time = values.swapaxes(0, 1).reshape(steps * samples, *entry["shape"])
        data[..., entry["lag"] : entry["lag"] + steps * samples] = in_time.T
        senders[entry["name"]], shapes[entry["name"]] = Source(data=data).s_out, entry["shape"]
        if entry["layer"]:
            senders[entry["name"]].connect(receivers[entry["layer"]])
    for n, entry in enumerate(plan["connections"]):
        made = connection(entry, weights[f"connection{n}.weight"].astype(int), steps)
        source, target = entry["source"], entry["target"]
        reordered(senders[source], shapes[source], entry["enters"]).connect(made.s_in)
        reordered(made.a_out, entry["gives"], shapes[target]).connect(receivers[target])
    for name, (depth, end) in sinks.items():
        if not isinstance(end, Sink):
            sinks[name] = depth, Sink(shape=end.shape, buffer=total)
            end.connect(sinks[name][1].a_in)
    first = next(iter(sinks.values()))[1]
    found: Plan = {}
    try:
        first.run(condition=RunSteps(num_steps=total), run_cfg=config)
        for name, (depth, sink) in sinks.items():
            seen = sink.data.get().astype(int)[..., depth : depth + steps * samples]
            found[name] = seen.T.reshape(samples, steps, *shapes[name]).swapaxes(0, 1)
        first.stop()
    except BaseException:  # noqa: BLE001 - Lava's stop would wait for ever, and so would Python's end
        traceback.print_exc()
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(1)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", help="samples, (B, ...), as .npy")
    parser.add_argument("--layers", help="whose spikes to keep, with commas between; default all")
    parser.add_argument(
        "--run-cfg",
        default="Loihi2SimCfg",
        choices=("Loihi2SimCfg", "Loihi2HwCfg"),
        help="Lava's run configuration; Loihi2HwCfg needs the chip, and was never tried",
    )
    asked = parser.parse_args()
    plan = json.loads((HERE / "plan.json").read_text())
    with np.load(HERE / "weights.npz") as stored:
        weights = dict(stored)
    layers = [entry["name"] for entry in plan["populations"] if not entry["relay"]]
    if asked.layers is not None:
        known, layers = layers, [] if asked.layers == "none" else asked.layers.split(",")
        if unknown := [name for name in layers if name not in known]:
            parser.error(f"no layer {', '.join(unknown)}; expected some of {', '.join(known)}")
    config = getattr(run_configs, asked.run_cfg)(select_tag="fixed_pt")
    found = run(plan, weights, frames_of(plan, np.load(asked.inputs)), layers, config)
    outputs = found[plan["output"]].reshape(*found[plan["output"]].shape[:2], -1)
    if plan["readout"]:
        outputs = (outputs << 6) + weights["readout.bias"].reshape(-1)
    spikes = {name: found[name].astype(np.uint8) for name in layers if name in found}
    np.savez_compressed("spikes.npz", outputs=outputs, **spikes)
    for sample, chosen in enumerate(outputs.sum(axis=0).argmax(axis=-1)):
        print(sample, chosen)


if __name__ == "__main__":
    main()
