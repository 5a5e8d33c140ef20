"""Lava's own ProcessModel classes, driven one after the other in this process.

No runtime, no shared memory: each model gets stub ports, and is run in the order of the network's
layers, so that a value takes part in the step in which it was made. A synapse's model sends what it
computed one step ago and keeps what it computes now; the kept sum is what counts here. Neurons are
`LIFReset` models: samples follow each other in time, and Lava's own reset stands between them.

The request: ``steps``; ``input``; ``layers``, each with ``name``, ``shape``, ``neuron`` (or false:
its sum is the result) and ``synapses``, each a dict of `_synapse`. The arrays: ``frames`` (T or 1,
B, *input shape); per layer n ``n.du``, ``n.dv``, ``n.vth``, ``n.bias_exp`` (*shape) and
``n.bias_mant`` (T or 1, B or 1, *shape); per synapse m of layer n ``n.m.weight``. The answer: per
layer ``n.s`` (bool), ``n.u``, ``n.v``, or ``n.sum``: (T, B, *shape), the state after the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
Arrays = dict[str, Values]

SIGN_OF_LIFE = 1.0
"""Seconds between two."""


class _Port:
    """Stands for a port of Lava: holds what was sent, as int32, and gives it out."""

    value: Values = np.zeros((), np.int32)

    def recv(self) -> Values:
        """What lies here."""
        return self.value

    def send(self, values: Values) -> None:
        """Keep it as Lava's channels carry it."""
        self.value = np.asarray(values).astype(np.int32)


class _Synapse:
    """A connection's model, and the shapes it has in Lava and in the network."""

    def __init__(self, plan: Mapping[str, Any], weight: Values, shape: list[int]) -> None:
        self.source: str = plan["source"]
        self._plan, self._shape = plan, shape
        self._model = _conv(plan, weight) if plan["kind"] == "conv" else _dense(plan, weight)
        self._model.s_in, self._model.a_out = _Port(), _Port()

    def forget(self) -> None:
        """Between two samples: what was under way is gone."""
        name = "a_buf" if self._plan["kind"] == "conv" else "a_buff"
        setattr(self._model, name, np.zeros_like(getattr(self._model, name)))

    def carry(self, values: Values) -> Values:
        """A source's values (*source shape) to the sum they bring in this step (*layer shape)."""
        plan, model = self._plan, self._model
        if plan["kind"] == "conv":
            image = values.reshape(plan["image"])
            model.s_in.value = image.transpose(2, 1, 0).astype(np.int32)
            model.run_spk()
            summed: Values = model.a_buf.transpose(2, 1, 0)
        else:
            model.s_in.value = values.reshape(-1).astype(np.int32)
            model.run_spk()
            summed = model.a_buff[:, 0] if plan["kind"] == "delay" else model.a_buff
        return summed.astype(np.int32).reshape(self._shape)


def _dense(plan: Mapping[str, Any], weight: Values) -> Any:
    """Dense or DelayDense; ``weight`` (out, in)."""
    from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc

    own = {"weight_exp": plan["weight_exp"], "num_weight_bits": plan["weight_bits"]}
    delayed = plan["kind"] == "delay"
    model = (PyDelayDenseModelBitAcc if delayed else PyDenseModelBitAcc)(own)
    model.weights = weight.astype(np.int32)
    model.num_message_bits = np.array([plan["message_bits"]])
    if delayed:
        model.delays = np.full(weight.shape, plan["delay"], np.int32)
        model.a_buff = np.zeros((len(weight), plan["delay"] + 1), np.int32)
    else:
        model.a_buff = np.zeros(len(weight), np.int32)
    return model


def _conv(plan: Mapping[str, Any], weight: Values) -> Any:
    """Conv; ``weight`` (Cout, KH, KW as torch has them) is turned to Lava's (Cout, KW, KH, Cin)."""
    from lava.proc.conv.models import PyConvModelFixed
    from lava.proc.conv.utils import output_shape

    flipped = weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)
    model = PyConvModelFixed({})
    model.weight = np.ascontiguousarray(flipped).astype(np.int32)
    model.kernel_size = np.array(flipped.shape[1:3], np.int32)
    for name in ("stride", "padding", "dilation"):
        setattr(model, name, np.array(plan[name][::-1], np.int32))
    model.groups = np.array([plan["groups"]], np.int32)
    model.num_message_bits = np.array([plan["message_bits"]], np.int8)
    image = tuple(plan["image"][::-1])
    shape = output_shape(
        image, len(weight), model.kernel_size, model.stride, model.padding, model.dilation
    )
    model.a_buf = np.zeros(shape, np.int32)
    return model


def _neuron(shape: list[int], steps: int, arrays: Mapping[str, Values], layer: int) -> Any:
    """A `LIFReset` that starts anew at every first step of a sample."""
    from lava.proc.lif.models import PyLifResetModelBitAcc

    model = PyLifResetModelBitAcc({"reset_interval": steps, "reset_offset": 1})
    model.u, model.v = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for name in ("du", "dv", "vth"):
        setattr(model, name, arrays[f"{layer}.{name}"].astype(np.int32))
    model.bias_exp = arrays[f"{layer}.bias_exp"].astype(np.int16)
    model.bias_mant = np.zeros(shape, np.int16)
    model.a_in, model.s_out = _Port(), _Port()
    return model


class _Layer:
    """A layer's models and what they did."""

    def __init__(self, plan: Mapping[str, Any], steps: int, samples: int, n: int, arrays: Arrays):
        self.name, self.shape = plan["name"], plan["shape"]
        self.synapses = [
            _Synapse(synapse, arrays[f"{n}.{m}.weight"], self.shape)
            for m, synapse in enumerate(plan["synapses"])
        ]
        self._model = _neuron(self.shape, steps, arrays, n) if plan["neuron"] else None
        self._biases = arrays.get(f"{n}.bias_mant")
        kinds = (
            {"s": np.bool_, "u": np.int32, "v": np.int32} if plan["neuron"] else {"sum": np.int32}
        )
        self.did = {
            f"{n}.{name}": np.zeros((steps, samples, *self.shape), kind)
            for name, kind in kinds.items()
        }

    def step(self, t: int, b: int, time_step: int, total: Values) -> Values:
        """One step of a sample from the sum of its synapses; what it emits."""
        if self._model is None or self._biases is None:
            (did,) = self.did.values()
            did[t, b] = total
            return total
        model, mantissa = self._model, self._biases
        model.time_step = time_step
        model.bias_mant[:] = mantissa[t % len(mantissa), b % mantissa.shape[1]]
        model.a_in.value = total
        model.run_spk()
        spikes: Values = model.s_out.value
        for did, values in zip(self.did.values(), (spikes, model.u, model.v), strict=True):
            did[t, b] = values
        return spikes


def run(
    request: Mapping[str, Any], arrays: Arrays, alive: Callable[[], None]
) -> tuple[dict[str, Any], Arrays]:
    """Run every sample through the models; what each layer did."""
    frames, steps = arrays["frames"], request["steps"]
    samples = frames.shape[1]
    layers = [_Layer(plan, steps, samples, n, arrays) for n, plan in enumerate(request["layers"])]
    clock = SimpleNamespace(last=time.monotonic())
    for b in range(samples):
        values = {layer.name: np.zeros(layer.shape, np.int32) for layer in layers}
        for layer in layers:
            for synapse in layer.synapses:
                synapse.forget()
        for t in range(steps):
            values[request["input"]] = frames[t % len(frames), b]
            for layer in layers:
                total = np.zeros(layer.shape, np.int32)
                for synapse in layer.synapses:
                    total = total + synapse.carry(values[synapse.source])
                values[layer.name] = layer.step(t, b, b * steps + t + 1, total)
            if time.monotonic() - clock.last > SIGN_OF_LIFE:
                alive()
                clock.last = time.monotonic()
    return {}, {name: did for layer in layers for name, did in layer.did.items()}
