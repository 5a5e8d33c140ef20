"""Every neuron, delay and recurrence on onnxruntime: the reference's bits, in every form.

Sums lie on a grid; the neurons' parameters do not, so that each of their roundings shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from random_networks import dyadic, frames
from snnpipe.deploy.runtimes.onnx import PLUGIN
from snnpipe.export.targets.onnx import PLUGIN as TARGET
from snnpipe.network.check import check
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv1d, Delay, Dense, Flatten, Layer, Network, Scale, Synapse
from snnpipe.network.neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Neuron,
    Resetting,
    Spiking,
    Sum,
    Threshold,
)
from snnpipe.network.simulate import simulate
from snnpipe.network.step_graph import FORMS
from snnpipe.network.trace import Record, unpack
from trace_equality import differences

STEPS = 7
RESETS = [("value", "same_step"), ("subtract", "same_step"), ("subtract", "next_after_decay")]


def array(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


def agrees(network: Network, folder: Path) -> None:
    """Hold every form against the reference, at batch 1 and 64; every population must fire."""
    check(network)
    x = frames(network, 64, 5, STEPS)
    record = Record(None, 64)
    expected, first = (simulate(network, part, STEPS, record) for part in (x, x[:, :1]))
    for layer in network.layers:
        if isinstance(layer.neuron, Spiking):
            rate = unpack(expected.spikes[layer.name], layer.shape).mean()
            assert 0.01 < rate < 0.99, layer.name
    for form in FORMS:
        TARGET.write(network, folder, {"form": form})
        session = PLUGIN.open(network, folder)
        assert differences(expected, session.run(x, STEPS, record)) == [], form
        assert differences(first, session.run(x[:, :1], STEPS, record)) == [], form
        for file in folder.iterdir():
            file.unlink()


NEURONS: dict[type, Callable[..., Neuron]] = {
    LIF: lambda **more: LIF(array([0.9, 0.35, 0.6]), array(0.7), **more),
    IF: lambda **more: IF(array([1.3, 0.45, 0.9]), **more),
    LI: lambda **more: LI(array([0.9, 0.35, 0.6]), **more),
    CubaLIF: lambda **more: CubaLIF(array(0.3), array([0.9, 0.35, 0.6]), array(0.8), **more),
    CubaLI: lambda **more: CubaLI(array([0.3, 0.7, 0.1]), array(0.9), **more),
    Threshold: lambda **more: Threshold(array([0.45, 0.7, 0.25])),
}


def network_of(kind: type, driven: bool, contract: Contract) -> Network:
    """Dense map to 3 of these neurons, with gains and a leak where ``driven``."""
    more = {"v_reset": array([-0.1, 0.05, 0.0])} if kind in get_args(Resetting) else {}
    if driven and kind is not Threshold:
        more["gain"] = array([0.77, 1.3, 0.6])
        more |= {"leak": array(0.11)} if kind is not IF else {}
        more |= {"synaptic_gain": array(0.83)} if kind in (CubaLIF, CubaLI) else {}
    rng = np.random.default_rng(2)
    dense = Dense("dense", dyadic(rng, (3, 8)), dyadic(rng, (3,), 2) / 2)
    layer = Layer("only", NEURONS[kind](**more), (3,), (Synapse("in", (dense,)),))
    return Network("in", (8,), (layer,), "only", contract)


@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize(("reset", "time"), RESETS)
@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("kind", list(NEURONS))
def test_every_variant_of_a_neuron_rounds_as_the_reference_rounds(
    tmp_path: Path, kind: type, compare: Any, reset: Any, time: Any, driven: bool
) -> None:
    contract = Contract(
        STEPS,
        compare=compare,
        reset=reset,
        reset_time=time,
        input_scale=1 / 8,
        input_levels=8,
    )
    agrees(network_of(kind, driven, contract), tmp_path)


def test_another_comparison_gives_other_spikes(tmp_path: Path) -> None:
    """What reaches the threshold exactly: the last step's spike is told by the same comparison."""
    dense = Dense("dense", array([[0.5]]))
    layer = Layer("only", LIF(array(0.5), array(0.5)), (1,), (Synapse("in", (dense,)),))
    x = np.ones((STEPS, 1, 1), np.float32)
    traces = []
    for compare in ("gt", "ge"):
        contract = Contract(STEPS, compare=compare, reset="subtract", reset_time="next_after_decay")
        network = Network("in", (1,), (layer,), "only", contract)
        TARGET.write(network, tmp_path, {"form": "step"})
        found = PLUGIN.open(network, tmp_path).run(x, STEPS)
        assert differences(simulate(network, x, STEPS), found) == []
        traces.append(found)
    assert "spikes.only" in differences(*traces)


def loop(*layers: Layer, output: str, late: bool = False) -> Network:
    reset = {"reset": "subtract", "reset_time": "next_after_decay"} if late else {}
    contract = Contract(STEPS, input_scale=1 / 8, input_levels=8, **reset)
    return Network("in", (6,), layers, output, contract)


RNG = np.random.default_rng(4)
IN = Dense("enter", dyadic(RNG, (5, 6)), dyadic(RNG, (5,), 2))
LIFS = LIF(array(0.6), array(0.45))
CUBAS = CubaLIF(array(0.3), array(0.6), array(0.55), gain=array(0.9))


def itself(*operations: Any) -> tuple[Layer, ...]:
    """A layer that feeds itself."""
    return (Layer("a", LIFS, (5,), (Synapse("in", (IN,)), Synapse("a", operations))),)


def pair(*back: Any) -> tuple[Layer, ...]:
    """Two layers that feed each other; the way back is one step late."""
    on = Dense("on", dyadic(RNG, (4, 5)), array(0.25) * np.ones(4, np.float32))
    home = Dense("home", dyadic(RNG, (5, 4)), dyadic(RNG, (5,), 1))
    return (
        Layer("a", CUBAS, (5,), (Synapse("in", (IN,)), Synapse("b", (home, *back)))),
        Layer("b", LIFS, (4,), (Synapse("a", (on,)),)),
    )


def through_a_sum(*back: Any) -> tuple[Layer, ...]:
    """A loop through a Sum that another layer reads in the same step."""
    halves = Scale("halves", array([0.5, 1, -0.5, 1, 2]))
    fall = Dense("fall", dyadic(RNG, (3, 5)))
    return (
        Layer("a", LIFS, (5,), (Synapse("in", (IN,)), Synapse("both", (halves, *back)))),
        Layer("both", Sum(), (5,), (Synapse("a"), Synapse("in", (Delay("wait", 3), SIDE)))),
        Layer("b", Threshold(array(0.3)), (3,), (Synapse("both", (fall,)),)),
    )


SIDE = Dense("side", dyadic(RNG, (5, 6)) / 4)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "layers",
    [
        itself(),
        itself(Dense("back", dyadic(RNG, (5, 5)), dyadic(RNG, (5,)))),
        itself(Scale("back", array(-0.25)), Delay("echo", 2)),
        itself(Delay("echo", 0)),
        pair(),
        pair(Delay("longer", 1)),
        through_a_sum(),
        through_a_sum(Delay("longer", 2)),
    ],
)
def test_recurrent_synapses_carry_the_last_step(
    tmp_path: Path, layers: tuple[Layer, ...], late: bool
) -> None:
    agrees(loop(*layers, output=layers[-1].name, late=late), tmp_path)


@pytest.mark.parametrize("steps", [0, 1, 2, STEPS - 1, STEPS, 40])
def test_a_delay_is_first_in_first_out(tmp_path: Path, steps: int) -> None:
    """Zeros come out until the first value does; a delay longer than the run gives zeros alone."""
    layers = (
        Layer("a", LIFS, (5,), (Synapse("in", (IN,)),)),
        Layer("out", Sum(), (5,), (Synapse("a", (Delay("wait", steps),)),)),
    )
    network = loop(*layers, output="out")
    agrees(network, tmp_path)
    x = frames(network, 3, 5, STEPS)
    trace = simulate(network, x, STEPS)
    spikes = unpack(trace.spikes["a"], (5,)).astype(np.float32)
    assert np.array_equal(trace.outputs[steps:], spikes[: max(STEPS - steps, 0)])
    assert not trace.outputs[:steps].any()


def test_images_wait_and_factors_are_not_folded_into_a_convolution(tmp_path: Path) -> None:
    """Factors off the grid behind a convolution of (C, L): folded into it they would round."""
    conv = Conv1d("conv", dyadic(RNG, (4, 1, 3)), dyadic(RNG, (4,)), 2, 1, 2, 2)
    factors = Scale("factors", array(np.arange(1, 17).reshape(4, 4) * 0.11))
    layers = (
        Layer("a", LIFS, (4, 4), (Synapse("in", (conv, Delay("wait", 2), factors)),)),
        Layer("out", Sum(), (16,), (Synapse("a", (Flatten("flat"),)),)),
    )
    contract = Contract(STEPS, input_scale=1 / 8, input_levels=8)
    agrees(Network("in", (2, 9), layers, "out", contract), tmp_path)
