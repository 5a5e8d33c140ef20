"""Lava's processes for a network: run with their latencies, they give the reference's spikes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from integer_networks import integer_frames, random_integer_network
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LIF, CubaLIF, Sum
from snnpipe.network.simulate import frames_of, simulate
from snnpipe.network.trace import Trace
from snnpipe.network.wiring import streams, wiring
from whole_exponents import with_whole_exponents
from wired_steps import run_wired


def ran(network: Network, x: np.ndarray, steps: int, clear: bool = True) -> Trace:
    wired = wiring(network)
    frames, _ = frames_of(network, x, steps)
    sent = streams(network, wired, frames)
    return run_wired(wired, sent, steps, frames.shape[1], clear)


def changed(found: Trace, truth: Trace) -> list[str]:
    assert set(found.spikes) == set(truth.spikes)
    names = [k for k in truth.spikes if (found.spikes[k] != truth.spikes[k]).any()]
    same = found.outputs.dtype.kind == truth.outputs.dtype.kind or truth.spikes
    assert same
    return names + (["outputs"] if (found.outputs != truth.outputs).any() else [])


def test_random_networks_as_the_reference() -> None:
    met: Counter[str] = Counter()
    for seed in range(150):
        made = random_integer_network(seed, steps=seed % 5 + 1, legal_for_lava=True)
        network = with_whole_exponents(made)
        steps = network.contract.steps
        try:
            wired = wiring(network)
        except RequestError as error:
            if error.code == "E_UNSUPPORTED" and "loop" in error.message:
                met["loops too short"] += 1
                continue
            raise
        x = integer_frames(network, 3, seed, steps if seed % 2 else None)
        truth = simulate(network, x, steps)
        assert not changed(ran(network, x, steps), truth), seed
        met["relays"] += sum(p.relay for p in wired.populations)
        met["delays"] += sum(c.delay > 0 for c in wired.connections)
        met["cleared"] += sum(bool(c.cleared) for c in wired.connections)
        met["cleared twice"] += sum(len(c.cleared) > 1 for c in wired.connections)
        met["from the host"] += sum(bool(s.layer) for s in wired.streams)
        met["graded"] += sum(c.graded for c in wired.connections)
        met["exponents"] += sum(c.exponent != 0 for c in wired.connections)
        met["convolutions"] += sum(c.kind == "conv" for c in wired.connections)
        met["spikes"] += sum(int(np.bitwise_count(bits).sum()) for bits in truth.spikes.values())
    assert min(met.values()) >= 5, met
    assert met["spikes"] > 10_000
    assert len(met) == 10


def one(value: float) -> np.ndarray:
    return np.float32(value)


def dense(name: str, rows: int, columns: int, seed: int = 0, bias: Any = None) -> Dense:
    rng = np.random.default_rng(seed)
    weight = (2 * rng.integers(-30, 60, (rows, columns))).astype(np.float32)
    return Dense(name, weight, bias)


def network_of(*layers: Layer, steps: int = 3, **changes: Any) -> Network:
    exponents = {layer.name: 6 for layer in layers}
    contract = Contract(steps, arithmetic=Integer(8, exponents), **changes)
    return Network("input", (6,), layers, layers[-1].name, contract)


LEAKY = LIF(one(0.75), one(90.0))
BIAS = np.arange(-20, 40, 10, dtype=np.float32)


def residual(skip: Synapse, neuron: Any = LEAKY) -> Network:
    """Three layers in a row and a skip from the first to the third."""
    return network_of(
        Layer("a", LEAKY, (6,), (Synapse("input", (dense("wa", 6, 6, 1, BIAS),)),)),
        Layer("b", neuron, (6,), (Synapse("a", (dense("wb", 6, 6, 2, BIAS),)),)),
        Layer("c", LEAKY, (6,), (Synapse("b", (dense("wc", 6, 6, 3, BIAS),)), skip)),
        Layer("out", Sum(), (6,), (Synapse("c", (dense("wo", 6, 6, 4, BIAS),)),)),
    )


FRAMES = (np.random.default_rng(5).random((3, 20, 6)) < 0.4).astype(np.float32)


def test_a_skip_waits_for_the_layers_it_leaves_out() -> None:
    network = residual(Synapse("a", (dense("ws", 6, 6, 7),)))
    wired = wiring(network)
    assert [(p.name, p.depth, p.relay) for p in wired.populations] == [
        ("a", 1, False),
        ("b", 2, False),
        ("c", 3, False),
        ("a+1", 2, True),
    ]
    assert (wired.readout and wired.readout.depth, wired.depth) == (4, 4)
    assert all(not c.cleared for c in wired.connections)
    assert not changed(ran(network, FRAMES, 3), simulate(network, FRAMES, 3))
    late = replace(wired, connections=tuple(
        replace(c, source="a") if c.source == "a+1" else c for c in wired.connections
    ))  # fmt: skip
    sent = streams(network, wired, FRAMES)
    assert changed(run_wired(late, sent, 3, 20), simulate(network, FRAMES, 3))


@pytest.mark.parametrize("waits", [1, 2, 3, 5])
def test_a_delay_ends_with_its_sample(waits: int) -> None:
    network = residual(Synapse("a", (Delay("d", waits), dense("ws", 6, 6, 7))))
    truth = simulate(network, FRAMES, 3)
    assert not changed(ran(network, FRAMES, 3), truth)
    assert changed(ran(network, FRAMES, 3, clear=False), truth)


def test_an_identity_that_is_delayed_and_one_that_is_not() -> None:
    for chain in ((), (Delay("d", 2),)):
        network = residual(Synapse("a", chain), LIF(one(0.5), one(1.0)))
        network = replace(
            network,
            layers=tuple(
                replace(layer, neuron=LIF(one(0.5), one(2.0))) if layer.name == "c" else layer
                for layer in network.layers
            ),
        )
        assert not changed(ran(network, FRAMES, 3), simulate(network, FRAMES, 3))


def recurrent(waits: int = 0) -> Network:
    chain = (*([Delay("d", waits)] if waits else []), dense("wr", 6, 6, 8))
    cuba = CubaLIF(one(0.5), one(0.75), one(120.0))
    return network_of(
        Layer("a", cuba, (6,), (
            Synapse("input", (dense("wa", 6, 6, 1, BIAS),)), Synapse("a", chain)
        )),
        Layer("b", IF(one(200.0)), (6,), (Synapse("a", (dense("wb", 6, 6, 2),)),)),
    )  # fmt: skip


@pytest.mark.parametrize("waits", [0, 1, 4])
def test_a_loop_does_not_reach_the_next_sample(waits: int) -> None:
    network = recurrent(waits)
    truth = simulate(network, FRAMES, 3)
    assert not changed(ran(network, FRAMES, 3), truth)
    if waits < 2:  # with 4 nothing arrives within its sample of 3 steps
        assert changed(ran(network, FRAMES, 3, clear=False), truth)


def test_one_step_a_sample() -> None:
    network = recurrent()
    truth = simulate(network, FRAMES[:1], 1)
    assert not changed(ran(network, FRAMES[:1], 1), truth)


def images(*operations: Any, shape: tuple[int, ...], fires: float = 40, **more: Any) -> Network:
    """A synapse from an image (3, 5, 4), and a read-out of what it feeds."""
    weight = (2 * np.random.default_rng(3).integers(-9, 30, (4, int(np.prod(shape))))).astype("f4")
    flat = (Flatten("flat"),) if len(shape) > 1 else ()
    layers = (
        Layer("a", LIF(one(0.5), one(fires)), shape, (Synapse("input", operations),)),
        Layer("out", Sum(), (4,), (Synapse("a", (*flat, Dense("wo", weight))),)),
    )
    contract = Contract(4, arithmetic=Integer(8, {}), **more)
    return Network("input", (3, 5, 4), layers, "out", contract)


def kernel(*shape: int) -> np.ndarray:
    return (2 * np.random.default_rng(9).integers(-20, 40, shape)).astype(np.float32)


def test_images_and_their_axes() -> None:
    x = (np.random.default_rng(2).random((4, 9, 3, 5, 4)) < 0.5).astype(np.float32)
    cases = [
        images(Conv("w", kernel(6, 1, 3, 2), None, (2, 1), (1, 0), (1, 2), 3), shape=(6, 3, 2)),
        images(SumPool("w", (2, 3), (1, 2), (0, 1)), shape=(3, 4, 2), fires=3),
        images(Flatten("f"), Dense("w", kernel(7, 60)), shape=(7,)),
        images(Conv("w", kernel(2, 3, 2, 3)), Flatten("f"), shape=(16,)),
        images(Delay("d", 2), Conv("w", kernel(2, 3, 2, 3)), shape=(2, 4, 2)),
    ]
    for network in cases:
        truth = simulate(network, x, 4)
        assert not changed(ran(network, x, 4), truth), network.layers[0].synapses
        assert np.bitwise_count(truth.spikes["a"]).sum() > 50


def test_a_delayed_convolution_between_layers() -> None:
    first = images(Conv("w", kernel(2, 3, 2, 3)), shape=(2, 4, 2))
    layers = (
        first.layers[0],
        Layer("b", LIF(one(0.5), one(40.0)), (4, 3, 2), (
            Synapse("a", (Delay("d", 3), Conv("v", kernel(4, 2, 2, 1)))),
        )),
    )  # fmt: skip
    network = replace(first, layers=layers, output="b")
    x = (np.random.default_rng(2).random((5, 9, 3, 5, 4)) < 0.5).astype(np.float32)
    network = network.with_contract(replace(network.contract, steps=5))
    truth = simulate(network, x, 5)
    assert not changed(ran(network, x, 5), truth)
    assert changed(ran(network, x, 5, clear=False), truth)
    assert [p.name for p in wiring(network).populations] == ["a", "b", "a~1", "a~2"]


def test_refusals_name_the_layer_and_what_to_do() -> None:
    good = residual(Synapse("a", (dense("ws", 6, 6, 7),)))

    def with_c(*synapses: Synapse, neuron: Any = LEAKY) -> Network:
        layers = [
            replace(x, synapses=synapses, neuron=neuron) if x.name == "c" else x
            for x in good.layers
        ]
        return replace(good, layers=tuple(layers))

    plain = Synapse("b", (dense("wc", 6, 6, 3),))
    back = replace(
        good,
        layers=tuple(
            replace(x, synapses=(*x.synapses, Synapse("c", (dense("wk", 6, 6, 3),))))
            if x.name == "b"
            else x
            for x in good.layers
        ),
    )
    summed = (
        good.layers[0],
        Layer("s", Sum(), (6,), (Synapse("a"),)),
        *good.layers[1:],
    )
    exponents = Integer(8, {}, {}, {"w": 1})
    conv = images(Conv("w", kernel(2, 3, 2, 3)), shape=(2, 4, 2))
    wide = images(Conv("w", kernel(6, 3, 1, 1), None, (128, 1)), shape=(6, 1, 4))
    host = Integer(8, {"a": 3}, {"a": 5})
    late = with_c(plain, Synapse("a", (Delay("d", 64), dense("ws", 6, 6, 7))))
    cases = [
        (back, "layer '.*loop.*delays"),
        (replace(good, layers=summed), "layer 's': a sum inside"),
        (conv.with_contract(conv.contract.with_arithmetic(exponents)), "'a'.*exponent.*'w'"),
        (wide, "'a'.*stride 128"),
        (conv.with_contract(conv.contract.with_arithmetic(host)), r"'a'.*units of 2\^3"),
        (late, "'c'.*64 steps late"),
        (images(SumPool("p", (2, 2), (1, 1)), Conv("w", kernel(2, 3, 2, 3)), shape=(2, 3, 1)),
         "layer 'a'.*'p' and 'w'"),
        (images(AvgPool("p", (2, 2), (1, 1)), shape=(3, 4, 3)), "'p'.*averages"),
        (good.with_contract(replace(good.contract, compare="ge")), "gt"),
        (good.with_contract(replace(good.contract, reset="subtract")), "reset"),
    ]  # fmt: skip
    for broken, words in cases:
        with pytest.raises(RequestError, match=words):
            wiring(broken)
    assert wiring(good)


def test_input_that_is_not_whole_is_refused() -> None:
    network = recurrent()
    for values in (0.5, -1.0, 2.0):
        with pytest.raises(RequestError, match="whole numbers"):
            streams(network, wiring(network), np.full((3, 2, 6), values, np.float32))
