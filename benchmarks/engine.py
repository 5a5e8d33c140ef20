"""Milliseconds per sample of a Fashion-MNIST-sized net: the event engine, numpy, onnxruntime.

The net: conv 16 stride 2, conv 32, conv 64 stride 2, conv 64 (3x3, padding 1, each with LIF), then
a linear read-out of 10, on 1x28x28, T = 4. Weights are random on a grid of 1/256; each threshold is
set where about 15 % of the layer's neurons fire per step. CPU time of one thread, the best of
several. onnxruntime runs the four steps unrolled in one graph with the first convolution computed
once. Run as `OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/engine.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from snnpipe.deploy.engine import load
from snnpipe.deploy.runtimes.event import PLUGIN
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record

STEPS = 4
DENSITY = 0.15
Run = Callable[[np.ndarray], np.ndarray]


def images(samples: int) -> np.ndarray:
    """(B, 1, 28, 28), multiples of 1/256, half of the pixels dark."""
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, (samples, 1, 28, 28))
    return (levels * (rng.random(levels.shape) < 0.5) / 256).astype(np.float32)


def net() -> Network:
    """The net of the table, thresholds set layer by layer."""
    rng = np.random.default_rng(0)
    contract = Contract(STEPS, input_scale=1 / 256, input_levels=255)
    layers: list[Layer] = []
    source, channels, size = "input", 1, 28
    for name, out, stride in (("a", 16, 2), ("b", 32, 1), ("c", 64, 2), ("d", 64, 1)):
        scale = np.sqrt(3 / (9 * channels))
        weight = np.round(rng.normal(0, scale, (out, channels, 3, 3)) * 256) / 256
        conv = Conv(f"{name}.conv", weight.astype(np.float32), None, (stride, stride), (1, 1))
        size = (size - 1) // stride + 1
        synapse = Synapse(source, (conv,))
        probe = Layer(name, Sum(), (out, size, size), (synapse,))
        network = Network("input", (1, 28, 28), (*layers, probe), name, contract)
        current = simulate(network, images(16), STEPS).outputs
        threshold = np.float32(np.quantile(current, 1 - DENSITY))
        lif = LIF(np.full((), 0.25, np.float32), np.full((), threshold, np.float32))
        layers.append(replace(probe, neuron=lif))
        source, channels = name, out
    weight = np.round(rng.normal(0, 0.02, (10, channels * size * size)) * 256) / 256
    chain = (Flatten("flat"), Dense("fc", weight.astype(np.float32)))
    layers.append(Layer("out", Sum(), (10,), (Synapse(source, chain),)))
    return Network("input", (1, 28, 28), tuple(layers), "out", contract)


def graph_nodes(network: Network) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The steps unrolled: ONNX nodes from ``input`` to ``out0`` to ``out3``, and the constants."""
    from onnx import TensorProto
    from onnx.helper import make_node

    *spiking, last = network.layers
    dense = last.synapses[0].operations[-1]
    assert isinstance(dense, Dense)
    nodes = []
    constants = {"fc.w": dense.weight}
    for t in range(STEPS):
        value = "input"
        for layer in spiking:
            n, conv, lif = f"{layer.name}{t}", layer.synapses[0].operations[0], layer.neuron
            assert isinstance(conv, Conv)
            assert isinstance(lif, LIF)
            weight, decay, threshold = (f"{layer.name}.{k}" for k in ("w", "decay", "threshold"))
            constants |= {weight: conv.weight, decay: lif.decay, threshold: lif.threshold}
            current = f"{layer.name}0.c" if value == "input" else f"{n}.c"
            if value != "input" or t == 0:
                pads, strides = [1, 1, 1, 1], list(conv.stride)
                ends = [value, weight]
                nodes.append(make_node("Conv", ends, [current], pads=pads, strides=strides))
            u = current
            if t > 0:
                before, u = f"{layer.name}{t - 1}.v", f"{n}.u"
                nodes.append(make_node("Mul", [before, decay], [f"{n}.leak"]))
                nodes.append(make_node("Add", [f"{n}.leak", current], [u]))
            nodes.append(make_node("Greater", [u, threshold], [f"{n}.fires"]))
            nodes.append(make_node("Cast", [f"{n}.fires"], [f"{n}.s"], to=TensorProto.FLOAT))
            nodes.append(make_node("Mul", [u, f"{n}.s"], [f"{n}.off"]))
            nodes.append(make_node("Sub", [u, f"{n}.off"], [f"{n}.v"]))
            value = f"{n}.s"
        nodes.append(make_node("Flatten", [value], [f"flat{t}"]))
        nodes.append(make_node("Gemm", [f"flat{t}", "fc.w"], [f"out{t}"], transB=1))
    return nodes, constants


def unrolled(network: Network) -> Run | None:
    """The net in onnxruntime, one thread; None where it is not installed."""
    try:
        import onnx
        import onnxruntime
        from onnx import helper
    except ImportError:
        return None
    nodes, constants = graph_nodes(network)
    names = [f"out{t}" for t in range(STEPS)]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", kind, ["B", 1, 28, 28])],
        [helper.make_tensor_value_info(name, kind, ["B", 10]) for name in names],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: np.stack(session.run(names, {"input": x}))


def milliseconds(run: Run, x: np.ndarray, batch: int) -> float:
    """CPU milliseconds per sample, the best of several passes over ``x``."""
    best = float("inf")
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        begin = time.process_time()
        for first in range(0, len(x), batch):
            run(x[first : first + batch])
        best = min(best, time.process_time() - begin)
    return best / len(x) * 1e3


def main() -> None:
    """Print the table."""
    network, x = net(), images(64)
    session = PLUGIN.open(network, None)
    trace = session.run(x, STEPS)
    reference = simulate(network, x, STEPS)
    assert np.array_equal(trace.outputs, reference.outputs)
    info = load().build_info()
    density = {
        layer.name: f"{trace.fired[layer.name].sum() / (layer.size * STEPS * 64):.0%}"
        for layer in network.layers[:-1]
    }
    print(f"compiler {info['compiler']}, instruction set {info['isa']}, spikes per step {density}")
    runs: dict[str, Run | None] = {
        "event engine": lambda x: session.run(x, STEPS, Record(0)).outputs,
        "event engine, all spikes kept": lambda x: session.run(x, STEPS).outputs,
        "numpy reference": lambda x: simulate(network, x, STEPS, Record(0)).outputs,
        "onnxruntime, unrolled": unrolled(network),
    }
    print(f"{'ms per sample, one thread':32}{'batch 1':>10}{'batch 64':>10}")
    for name, run in runs.items():
        if run is None:
            print(f"{name:32}{'not installed':>20}")
            continue
        assert np.array_equal(run(x), reference.outputs), name
        print(f"{name:32}{milliseconds(run, x, 1):10.3f}{milliseconds(run, x, 64):10.3f}")


if __name__ == "__main__":
    main()
