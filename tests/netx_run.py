"""Run a `.net` file with lava-dl's own reader under Lava's runtime; only for the private Python.

netx_run.py FILE GIVEN.npy OUT.npz STEPS spikes|mantissas: spikes (…, T') of every layer under its
number, in Lava's axes; GIVEN holds spikes (…, T), or bias mantissas of the input neurons.
"""

import ctypes
import os
import sys

os.register_at_fork(after_in_child=lambda: ctypes.CDLL(None).prctl(1, 9))  # die with the parent

import numpy as np  # noqa: E402
from lava.lib.dl.netx import hdf5  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.proc import io  # noqa: E402


def clear(layer, first: int, total: int) -> None:
    """Take out of loops and delays what biased layers sent before their first step.

    netx resets neurons only (here at the step ``first``), and these buffers outlive that. A Reset
    acts behind the steps with (t - 1) % interval == offset: once in a run of ``total`` steps.
    """
    buffers = []
    if hasattr(layer, "synapse_rec"):
        buffers.append((layer.synapse_rec, first - 2))
    if hasattr(layer, "synapse") and hasattr(layer.synapse, "delays"):
        buffers.append((layer.synapse, first - 3))
    for synapse, offset in buffers:
        if offset >= 0:
            io.reset.Reset(interval=total + 1, offset=offset).connect_var(synapse.a_buff)


def main() -> None:
    file, given, out, steps, drive = sys.argv[1:]
    x, count = np.load(given), int(steps)
    spikes = drive == "spikes"
    shape = {"input_shape": x.shape[:-1]} if spikes and x.ndim > 2 else {}
    # A layer behind spikes receives them one step late: its reset waits for it.
    net = hdf5.Network(file, reset_interval=count, reset_offset=int(spikes), **shape)
    total = count + len(net.layers) + 1
    sinks = []
    for index, layer in enumerate(net.layers):
        clear(layer, index + 1 + int(spikes), total)
        sinks.append(io.sink.RingBuffer(shape=layer.neuron.s_out.shape, buffer=total))
        layer.neuron.s_out.connect(sinks[-1].a_in)
    if spikes:
        data = np.zeros((*x.shape[:-1], total))
        data[..., :count] = x
        source = io.source.RingBuffer(data=data)
        source.s_out.connect(net.inp)
    else:
        net.in_layer.neuron.bias_mant.init = x.astype(int)
    try:
        net.run(condition=RunSteps(num_steps=total), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
        np.savez(out, **{str(n): sink.data.get() for n, sink in enumerate(sinks)})
    finally:
        net.stop()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
