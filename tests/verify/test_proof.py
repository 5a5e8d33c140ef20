"""The replay proof: the screen judges as the definition does, and a fault shows where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from off_grid import off_grid, run_scrambled
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.network import simulate as reference
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv, Delay, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.linear import apply
from snnpipe.network.neurons import IF, LIF, Sum
from snnpipe.network.simulate import frames_of, simulate
from snnpipe.network.trace import Trace
from snnpipe.verify import balls, proof
from snnpipe.verify.balls import rounded
from snnpipe.verify.compare import First
from snnpipe.verify.forced import forced, maps_of
from snnpipe.verify.proof import prove
from snnpipe.verify.replay import LayerReplay, replay_all

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SAMPLES, STEPS = 400, 4


@pytest.mark.parametrize(("margin", "u"), [(2.1, 2.0**-24), (1e5, 2.0**-24), (2.1, 2.0**-12)])
@SLOW
@given(networks(graded=True), st.integers(0, 2**32 - 1), st.booleans())
def test_the_screen_judges_as_the_definition_does(
    margin: float, u: float, network: Network, seed: int, still: bool
) -> None:
    """Also where nearly all is gathered (a wide margin), and where much is within rounding."""
    network = off_grid(network, seed)
    steps = network.contract.steps
    x = frames(network, 4, seed, None if still else steps)
    trace = simulate(network, x, steps)
    spikes = {name: bits ^ (np.uint8(1) * (seed % 2)) for name, bits in trace.spikes.items()}
    lying = replace(trace, spikes=spikes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "MARGIN", margin)
        patch.setattr(balls, "U", u)
        shown, _ = frames_of(network, x, steps)
        expected = replay_all(
            forced(network, shown, lying.spikes, lying.outputs, rounded, maps_of(network))
        )
        assert same(prove(network, x, lying), expected)
        patch.setattr(proof, "MEMORY", 1)
        assert same(prove(network, x, lying), expected)


def same(found: tuple[LayerReplay, ...], expected: tuple[LayerReplay, ...]) -> bool:
    """Equal but for the last digits of float64 in the numbers of the first wrong value."""

    def close(a: Any, b: Any) -> bool:
        return a == b or bool(np.isclose(a, b, rtol=1e-9, atol=1e-12))

    def same_first(a: First | None, b: First | None) -> bool:
        if a is None or b is None:
            return a is b
        return all(map(close, asdict(a).values(), asdict(b).values()))

    return len(found) == len(expected) and all(
        replace(a, first=None) == replace(b, first=None) and same_first(a.first, b.first)
        for a, b in zip(found, expected, strict=True)
    )


def one(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def small_net(seed: int = 2) -> Network:
    """Three convolutions and a read-out, 16 x 16 images, weights off every grid."""
    rng = np.random.default_rng(seed)

    def conv(name: str, inputs: int, outputs: int, stride: int) -> Conv:
        weight = rng.normal(0, 2 / np.sqrt(9 * inputs), (outputs, inputs, 3, 3))
        weight -= 0.8 * weight.mean(axis=(1, 2, 3), keepdims=True)  # no channel is silent
        bias = rng.normal(0.6, 0.1, outputs).astype(np.float32)
        return Conv(name, weight.astype(np.float32), bias, (stride, stride), (1, 1))

    lif = LIF(one(0.25), one(1.0))
    fc = Dense("fc", rng.normal(0, 0.1, (5, 192)).astype(np.float32), one(0.0)[None].repeat(5))
    layers = (
        Layer("lif1", lif, (8, 8, 8), (Synapse("input", (conv("conv1", 1, 8, 2),)),)),
        Layer("lif2", lif, (12, 8, 8), (Synapse("lif1", (conv("conv2", 8, 12, 1),)),)),
        Layer("lif3", lif, (12, 4, 4), (Synapse("lif2", (conv("conv3", 12, 12, 2),)),)),
        Layer("out", Sum(), (5,), (Synapse("lif3", (Flatten("flatten"), fc)),)),
    )
    return Network("input", (1, 16, 16), layers, "out", Contract(STEPS, input_scale=1 / 256))


NET = small_net()
X = (np.random.default_rng(7).integers(0, 256, (SAMPLES, 1, 16, 16)) / 256).astype(np.float32)


def edited(layer: str, **changes: Any) -> Network:
    """The network with the last operation of one layer changed."""
    old = NET.layer(layer)
    (synapse,) = old.synapses
    last = replace(synapse.operations[-1], **changes)  # type: ignore[arg-type]  # fields of that operation
    synapse = replace(synapse, operations=(*synapse.operations[:-1], last))
    return with_layer(replace(old, synapses=(synapse,)))


def with_layer(layer: Layer) -> Network:
    return replace(NET, layers=tuple(layer if x.name == layer.name else x for x in NET.layers))


def with_neuron(decay: float = 0.25, threshold: float = 1.0) -> Network:
    return with_layer(replace(NET.layer("lif2"), neuron=LIF(one(decay), one(threshold))))


def weight_of(layer: str) -> np.ndarray:
    operation = NET.layer(layer).synapses[0].operations[-1]
    assert isinstance(operation, Conv | Dense)
    return operation.weight.copy()


def bias_of(layer: str) -> np.ndarray:
    operation = NET.layer(layer).synapses[0].operations[-1]
    assert isinstance(operation, Conv)
    assert operation.bias is not None
    return operation.bias.copy()


def run(network: Network, x: np.ndarray = X) -> Trace:
    return simulate(network, x, STEPS)


def one_weight(layer: str, by: float) -> Trace:
    weight = weight_of(layer)
    weight[(3, 2, 1, 1) if weight.ndim == 4 else (3, 7)] += np.float32(by)
    return run(edited(layer, weight=weight))


def one_bias() -> Trace:
    bias = bias_of("lif2")
    bias[3] = 0
    return run(edited("lif2", bias=bias))


def other_contract(**changes: Any) -> Trace:
    """Only layer lif2 follows another contract."""
    return one_layer_by(lambda cell: replace(cell, contract=replace(cell.contract, **changes)))


def one_layer_by(change: Callable[[Any], Any]) -> Trace:
    """A run in which the neuron of lif2 is another one."""
    cell_of = reference.Cell.of
    neuron = LIF(one(0.25), one(1.0))
    marked = with_layer(replace(NET.layer("lif2"), neuron=neuron))

    class Cells:
        @staticmethod
        def of(found: Any, contract: Contract, convert: Any) -> Any:
            cell = cell_of(found, contract, convert)
            return change(cell) if found is neuron else cell

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "Cell", Cells)
        return run(marked)


def late() -> Trace:
    (synapse,) = NET.layer("lif2").synapses
    synapse = replace(synapse, operations=(Delay("delay", 1), *synapse.operations))
    return run(with_layer(replace(NET.layer("lif2"), synapses=(synapse,))))


def bfloat16() -> Trace:
    def rounded_to_8_bits(operation: Any, x: np.ndarray) -> np.ndarray:
        found = apply(operation, x)
        if operation.name != "conv2":
            return found
        mantissa, exponent = np.frexp(found)
        return np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "apply", rounded_to_8_bits)
        return run(NET)


def int8() -> Trace:
    weight = weight_of("lif2")
    scale = 127 / abs(weight).max()
    return run(edited("lif2", weight=(np.rint(weight * scale) / scale).astype(np.float32)))


def half() -> Trace:
    weight = weight_of("lif2").astype(np.float16)
    return run(edited("lif2", weight=weight.astype(np.float32)))


def flattened_last() -> Trace:
    weight = weight_of("out").reshape(5, 12, 4, 4).transpose(0, 2, 3, 1).reshape(5, -1)
    return run(edited("out", weight=np.ascontiguousarray(weight)))


def swapped() -> Trace:
    return run(NET, X[::-1])


FAULTS: dict[str, tuple[str, Callable[[], Trace]]] = {
    "one weight + 1e-3": ("lif2", lambda: one_weight("lif2", 1e-3)),
    "one weight + 1e-2": ("lif2", lambda: one_weight("lif2", 1e-2)),
    "one weight + 1e-2, last convolution": ("lif3", lambda: one_weight("lif3", 1e-2)),
    "one weight + 1e-3, read-out": ("out", lambda: one_weight("out", 1e-3)),
    "threshold + 1 %": ("lif2", lambda: run(with_neuron(threshold=1.01))),
    "threshold + 0.01 %": ("lif2", lambda: run(with_neuron(threshold=1.0001))),
    "subtract for zero": ("lif2", lambda: other_contract(reset="subtract")),
    "decay 0.26": ("lif2", lambda: run(with_neuron(decay=0.26))),
    "biases dropped": ("lif2", lambda: run(edited("lif2", bias=None))),
    "one bias dropped": ("lif2", one_bias),
    "kernel transposed": (
        "lif2",
        lambda: run(edited("lif2", weight=weight_of("lif2").swapaxes(2, 3))),
    ),
    "kernel flipped": (
        "lif2",
        lambda: run(edited("lif2", weight=weight_of("lif2")[:, :, ::-1, ::-1])),
    ),
    "one step late": ("lif2", late),
    "input / 255": ("lif1", lambda: run(NET, X * np.float32(256 / 255))),
    "currents in bfloat16": ("lif2", bfloat16),
    "weights in float16": ("lif2", half),
    "weights in int8": ("lif2", int8),
    "flattened H, W, C": ("out", flattened_last),
    "samples swapped": ("lif1", swapped),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_wrong_in_its_own_layer_and_nowhere_else(fault: str) -> None:
    place, make = FAULTS[fault]
    trace = make()
    judged = {layer.layer: layer for layer in prove(NET, X, trace)}
    assert {name for name, layer in judged.items() if layer.wrong} == {place}
    first = judged[place].first
    assert first is not None
    assert first.bound is not None
    assert first.kind == ("output" if place == "out" else "spike")
    if first.kind == "spike":
        assert first.membrane is not None
        assert abs(first.membrane - 1.0) > first.bound
        assert (first.membrane > 1.0) == bool(first.expected) != bool(first.found)
    else:
        assert abs(first.expected - first.found) > first.bound


def test_greater_or_equal_cannot_be_told_from_greater() -> None:
    trace = other_contract(compare="ge")
    judged = prove(NET, X, trace)
    assert sum(layer.wrong for layer in judged) == 0
    assert sum(layer.ties for layer in judged) == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_right_runtime_has_nothing_wrong(seed: int) -> None:
    """Added up in other orders, some of its spikes are not the reference's."""
    trace = run_scrambled(NET, X[:60], STEPS, seed)
    judged = prove(NET, X[:60], trace)
    assert [layer.layer for layer in judged] == ["lif1", "lif2", "lif3", "out"]
    assert sum(layer.wrong for layer in judged) == 0
    assert [layer.judged for layer in judged] == [60 * STEPS * n for n in (512, 768, 192, 5)]
    assert all(layer.spikes > 1000 for layer in judged[:3])
    for layer in judged[:3]:
        assert layer.certain + layer.within_rounding == layer.judged
        assert layer.within_rounding < 1e-4 * layer.judged


def test_the_first_wrong_is_that_of_the_earliest_sample() -> None:
    x = np.concatenate([np.zeros_like(X[:30]), X])
    weight = weight_of("lif2") * np.float32(1.01)
    trace = simulate(edited("lif2", weight=weight), x, STEPS)
    whole = prove(NET, x, trace)[1]
    assert whole.first is not None
    assert whole.first.sample >= 30
    assert prove(NET, x, trace, offset=1000)[1].first == replace(
        whole.first, sample=whole.first.sample + 1000
    )


def test_an_output_that_is_not_the_last_layers_spikes_is_wrong() -> None:
    layer = replace(NET.layer("out"), neuron=LIF(one(0.5), one(0.2)))
    network = with_layer(layer)
    trace = simulate(network, X[:5], STEPS)
    assert prove(network, X[:5], trace)[-1].wrong == 0
    outputs = trace.outputs.copy()
    outputs[2, 3, 1] = 0.5
    judged = prove(network, X[:5], replace(trace, outputs=outputs))[-1]
    assert judged.wrong == 1
    assert judged.first is not None
    assert (judged.first.kind, judged.first.sample, judged.first.step) == ("output", 3, 2)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_outputs_that_are_not_finite_are_wrong(value: str) -> None:
    """And what they feed is not: a layer behind the read-out stays clean."""
    back = Synapse("out", (Dense("back", np.full((1, 5), 0.3, np.float32)),))
    fed = Layer("behind", LIF(one(0.5), one(0.4)), (1,), (back,))
    network = replace(NET, layers=(*NET.layers, fed))
    trace = simulate(network, X[:5], STEPS)
    outputs = trace.outputs.copy()
    outputs[1, 2] = np.float32(value)
    judged = prove(network, X[:5], replace(trace, outputs=outputs))
    assert [layer.wrong for layer in judged[:-1]] == [0, 0, 0, 5]
    first = judged[3].first
    assert first is not None
    assert not np.isfinite(first.found)
    others = replace(trace, spikes={**trace.spikes, "behind": trace.spikes["behind"] * 0})
    assert prove(network, X[:5], others)[-1].wrong == judged[-1].spikes > 0


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_not_finite_is_wrong_where_a_zero_belongs(value: str) -> None:
    dense = Dense("w", np.full((3, 4), 0.3, np.float32))
    network = Network(
        "input", (4,), (Layer("out", Sum(), (3,), (Synapse("input", (dense,)),)),), "out",
        Contract(steps=2),
    )  # fmt: skip
    x = np.zeros((2, 5, 4), np.float32)
    trace = simulate(network, x, 2)
    assert prove(network, x, trace)[0].wrong == 0
    outputs = trace.outputs.copy()
    outputs[1, 2] = np.float32(value)
    assert prove(network, x, replace(trace, outputs=outputs))[0].wrong == 3


@pytest.mark.parametrize("weight", [3.4e38, 1e38])
def test_values_beyond_float32_are_refused(weight: float) -> None:
    """A sum that overflows at once, and a membrane that does after some steps."""
    dense = Dense("w", np.full((2, 2), weight if weight > 2e38 else weight / 2, np.float32))
    neuron = IF(np.array(3.4e38, np.float32))
    layer = Layer("a", neuron, (2,), (Synapse("input", (dense,)),))
    network = Network("input", (2,), (layer,), "a", Contract(steps=6))
    x = np.ones((6, 3, 2), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        trace = simulate(network, x, 6)
        with pytest.raises(RequestError, match=r"layer 'a': values reach .* beyond what float32"):
            prove(network, x, trace)
