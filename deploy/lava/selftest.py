"""Whether a Lava environment computes what our reference does, in its models and its runtime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CouldNotRunError
from ...network.contract import Contract, Integer
from ...network.layers import Conv, Delay, Dense, Flatten, Layer, Network, Synapse
from ...network.neurons import IF, LIF, CubaLIF, Sum
from ...network.simulate import simulate
from ...network.trace import Record, unpack
from .models import ModelsSession
from .process import Worker

STEPS = 12
_DEADLINE = 120.0


def _decay(units: Any) -> NDArray[np.float32]:
    """From units of 1/4096."""
    return np.asarray(units, np.float32) / np.float32(4096)


def self_test_network() -> Network:
    """Two channels of 6x5 to a convolution, a delayed dense map with a loop, and a read-out."""
    rng = np.random.default_rng(20)

    def even(*shape: int) -> np.ndarray:
        return (2 * rng.integers(-40, 60, shape)).astype(np.float32)

    def whole(low: int, high: int, *shape: int) -> np.ndarray:
        return rng.integers(low, high, shape).astype(np.float32)

    conv = Conv("conv", even(4, 1, 3, 2), whole(-9, 9, 4), (2, 1), (1, 0), (1, 2), 2)
    decay = _decay(whole(0, 4096, 4, 1, 1))
    image = Layer(
        "image", LIF(decay, whole(60, 250, 4, 1, 1)), (4, 3, 3), (Synapse("in", (conv,)),)
    )
    late = Synapse("image", (Flatten("flat"), Delay("delay", 3), Dense("dense", even(9, 36))))
    loop = Synapse("loop", (Dense("back", even(9, 9)),))
    cuba = CubaLIF(_decay(1000), _decay(3000), whole(200, 900, 9))
    last = Synapse("loop", (Dense("third", even(5, 9), whole(-9, 9, 5)),))
    layers = (
        image,
        Layer("loop", cuba, (9,), (late, loop)),
        Layer("last", IF(np.array(300, np.float32)), (5,), (last,)),
        Layer("out", Sum(), (3,), (Synapse("last", (Dense("fc", even(3, 5)),)),)),
    )
    whole_numbers = Integer(8, {layer.name: 0 for layer in layers}, {}, {"back": -2})
    return Network("in", (2, 6, 5), layers, "out", Contract(STEPS, arithmetic=whole_numbers))


def self_test(worker: Worker) -> None:
    """Raise CouldNotRunError (E_LAVA) where Lava and our reference differ in a single bit."""
    network = self_test_network()
    x = np.random.default_rng(3).integers(0, 2, (STEPS, 2, 2, 6, 5)).astype(np.float32)
    record = Record(currents=2)
    expected = simulate(network, x, STEPS, record)
    found = ModelsSession(network, worker=worker).run(x, STEPS, record)
    pairs = {
        "outputs": (found.outputs, expected.outputs),
        **{f"spikes of {k}": (found.spikes[k], bits) for k, bits in expected.spikes.items()},
        **{f"currents of {k}": (found.currents[k], c) for k, c in expected.currents.items()},
    }
    for name, (ours, theirs) in pairs.items():
        if not np.array_equal(ours, theirs):
            raise CouldNotRunError(
                "E_LAVA", f"the self-test failed: Lava's models differ from the reference in {name}"
            )
    _runtime(worker)


def _runtime(worker: Worker) -> None:
    """The real runtime, with its processes and shared memory, on one dense map and its neurons."""
    rng = np.random.default_rng(4)
    weight, steps = 2 * rng.integers(-50, 60, (6, 8)), 20
    spikes = rng.integers(0, 2, (8, steps))
    neuron = LIF(_decay(3584), np.array(200, np.float32))
    layer = Layer(
        "one", neuron, (6,), (Synapse("in", (Dense("dense", weight.astype(np.float32)),)),)
    )
    contract = Contract(steps, arithmetic=Integer(8, {"one": 0}))
    network = replace(self_test_network(), layers=(layer,), output="one", contract=contract)
    network = replace(network, input_shape=(8,))
    expected = simulate(network, spikes.T[:, None].astype(np.float32), steps)
    request = {
        "program": "chain",
        "steps": steps,
        "dense": {},
        "lif": {"du": 4095, "dv": 512, "vth": 200},
    }
    _, found = worker.ask(request, {"spikes": spikes, "weights": weight}, _DEADLINE)
    shifted = unpack(expected.spikes["one"], (6,))[: steps - 1, 0].T
    if not np.array_equal(found["s"][:, 1:], shifted) or not shifted.any():
        raise CouldNotRunError(
            "E_LAVA", "the self-test failed: Lava's runtime differs from the reference"
        )
