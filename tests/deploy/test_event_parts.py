"""All that a float network can be made of, on the event engine: bit for bit the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from random_networks import FLOAT_ONLY, dyadic, frames
from snnpipe.deploy.runtimes._lowering import Lowering
from snnpipe.deploy.runtimes.event import PLUGIN
from snnpipe.deploy.runtimes.loihi import PLUGIN as LOIHI
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.dynamics import Cell, State
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Scale,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Sum, Threshold
from snnpipe.network.simulate import simulate
from snnpipe.network.support import PARTS
from snnpipe.network.trace import Record, join
from trace_equality import differences

engine = pytest.importorskip(
    "snnpipe.deploy.engine._engine", reason="the event engine is not built here"
)
WIDEST = engine.build_info()["isa"]
ISAS = ["base", "v3", "v4"][: 1 + ["base", "v3", "v4"].index(WIDEST)]
RESETS = [("value", "same_step"), ("subtract", "same_step"), ("subtract", "next_after_decay")]


def single(value: float) -> np.ndarray:
    return np.full((), value, np.float32)


def is_the_reference(network: Network, isas: Any = ("",), samples: int = 5) -> None:
    """Every field of the Trace, for a still input and one of its own at every step."""
    steps = network.contract.steps
    for isa in isas:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SNNPIPE_ISA", isa)
            session = PLUGIN.open(network, None)
        for per_step in (None, steps):
            x = frames(network, samples, 3, per_step)
            for record in (Record(None, samples), Record(2, 3)):
                expected = simulate(network, x, steps, record)
                assert differences(session.run(x, steps, record), expected) == []


def neuron(kind: type, rng: np.random.Generator, own: set[str]) -> Neuron:
    """Off any grid; per channel and per neuron of (70, 2, 3)."""
    ranges = {
        "decay": (0.3, 0.97, (70, 1, 1)),
        "synaptic_decay": (0.3, 0.9, (70, 2, 3)),
        "threshold": (0.2, 0.9, (70, 2, 3)),
        "v_reset": (-0.1, 0.1, (70, 1, 1)),
        "gain": (0.5, 1.5, (70, 2, 3)),
        "leak": (-0.2, 0.3, ()),
        "synaptic_gain": (0.5, 1.5, ()),
    }
    names = set(kind.__annotations__) & (own | {"decay", "synaptic_decay", "threshold", "v_reset"})
    made: Neuron = kind(
        **{n: np.asarray(rng.uniform(*ranges[n]), np.float32) for n in sorted(names)}
    )
    return made


@pytest.mark.parametrize("kind", [LIF, IF, LI, CubaLIF, CubaLI, Threshold])
@pytest.mark.parametrize(("reset", "reset_time"), RESETS)
@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("own", [set(), {"gain"}, {"gain", "leak"}, {"synaptic_gain"}])
def test_a_step_of_every_neuron(
    kind: type, reset: Any, reset_time: Any, compare: Any, own: set[str]
) -> None:
    rng = np.random.default_rng(4)
    conv = Conv("conv", dyadic(rng, (70, 2, 2, 2)), dyadic(rng, (70,)))
    shape = (70, 2, 3)
    layer = Layer("layer", neuron(kind, rng, own), shape, (Synapse("in", (conv,)),))
    contract = Contract(9, compare=compare, reset=reset, reset_time=reset_time, input_scale=0.25)
    network = Network("in", (2, 3, 4), (layer,), "layer", contract)
    is_the_reference(network, ISAS)


@pytest.mark.parametrize(
    "own",
    [
        LIF(single(0.5), single(1)),
        IF(single(1)),
        Threshold(single(1)),
        CubaLIF(single(0.5), single(0.5), single(1)),
    ],
)
@pytest.mark.parametrize(("reset", "reset_time"), RESETS)
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_membranes_exactly_at_the_threshold(
    own: Neuron, reset: Any, reset_time: Any, compare: Any
) -> None:
    layer = Layer("layer", own, (70,), (Synapse("in"),))
    contract = Contract(6, compare=compare, reset=reset, reset_time=reset_time, input_scale=0.25,
                        input_levels=6)  # fmt: skip
    network = Network("in", (70,), (layer,), "layer", contract)
    is_the_reference(network, ISAS)
    met = []
    x = frames(network, 5, 3, 6)
    simulate(network, x, 6, watch=lambda _, t, u, i: met.append((u == 1).any()))
    assert sum(met) >= 3


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("reset", "reset_time"), RESETS)
def test_the_order_of_rounded_operations(isa: str, reset: Any, reset_time: Any) -> None:
    rng = np.random.default_rng(4)
    own = neuron(CubaLIF, rng, {"gain", "leak", "synaptic_gain"})
    assert isinstance(own, CubaLIF)
    conv = Conv("conv", dyadic(rng, (70, 5, 1, 1)))
    layer = Layer("layer", own, (70, 2, 3), (Synapse("in", (conv,)),))
    contract = Contract(9, reset=reset, reset_time=reset_time, input_scale=0.25, input_levels=9)
    network = Network("in", (5, 2, 3), (layer,), "layer", contract)
    x = frames(network, 3, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNPIPE_ISA", isa)
        session = PLUGIN.open(network, None)
    flat = np.ascontiguousarray(x.reshape(3, -1))
    plan: Any = session.plan
    membranes = plan.run([flat], 9, membranes=3)[4][session.groups["layer"]]
    cell = Cell.of(own, contract, lambda values: values)
    state, same = State(), True
    for t, current in enumerate(simulate(network, x, 9, Record(0, 3)).currents["layer"]):
        before = state
        state = cell.membrane(before, current.reshape(3, 70, 2, 3))
        late = own.decay * before.v + own.gain * state.i + own.leak - before.owed
        same = same and np.array_equal(late, state.v)
        state = cell.settle(state, cell.decide(state.v))
        np.testing.assert_array_equal(membranes[t], state.v.reshape(3, -1))
    assert not same  # adding the leak last can be told apart


def dense(rng: np.random.Generator, name: str, out: int, size: int, bias: bool = True) -> Dense:
    return Dense(name, dyadic(rng, (out, size)), dyadic(rng, (out,)) if bias else None)


LIFS = LIF(single(0.5), single(1.5), single(0.25))


def chained(steps: int, chain: list[Operation], shape: tuple[int, ...]) -> Network:
    """Through a chain into one layer: an input (2, 4, 3), and spikes made of it."""
    again = tuple(replace(operation, name=f"{operation.name}.again") for operation in chain)
    layers = (
        Layer("spikes", LIF(single(0.25), single(0.5)), (2, 4, 3), (Synapse("in"),)),
        Layer("out", LIFS, shape, (Synapse("in", tuple(chain)), Synapse("spikes", again))),
    )
    contract = Contract(steps, input_scale=0.25, input_levels=4)
    return Network("in", (2, 4, 3), layers, "out", contract)


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("biases", [(False, False), (True, False), (False, True), (True, True)])
def test_a_delay_anywhere_in_a_synapse(steps: int, delay: int, biases: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(1)
    flat = Flatten("flat0")
    one = dense(rng, "one", 7, 24, biases[0])
    two = dense(rng, "two", 66, 7, biases[1])
    wait = Delay("wait", delay)
    chains: list[tuple[list[Operation], int]] = [
        ([wait, flat, one], 7),
        ([flat, wait, one], 7),
        ([flat, one, wait], 7),
        ([flat, one, wait, two], 66),
        ([flat, wait, one, Delay("more", 1), two, Delay("most", delay)], 66),
    ]
    for chain, out in chains:
        is_the_reference(chained(steps, chain, (out,)))
    conv = Conv("conv", dyadic(rng, (5, 2, 2, 2)), dyadic(rng, (5,)) if biases[0] else None)
    pool = AvgPool("pool", (1, 2), (1, 1))
    image: list[Operation] = [conv, wait, Scale("times", single(-0.5)), pool, Delay("more", 1)]
    is_the_reference(chained(steps, image, (5, 3, 1)))


def test_convolutions_over_time_and_elementwise_factors() -> None:
    rng = np.random.default_rng(6)
    first = Conv1d("first", dyadic(rng, (70, 2, 3)), dyadic(rng, (70,)), 2, 1, 2)
    second = Conv1d("second", dyadic(rng, (6, 35, 2)), None, groups=2)
    per_neuron = Scale("neuron", dyadic(rng, (70, 4)))
    per_channel = Scale("channel", dyadic(rng, (6, 1)))
    rows = Conv1d("rows", dyadic(rng, (6, 6, 1)), dyadic(rng, (6,)))
    layers = (
        Layer("a", LIFS, (70, 4), (Synapse("in", (first,)),)),
        Layer("b", CubaLIF(single(0.5), single(0.5), single(1), leak=single(0.25)), (70, 4),
              (Synapse("a", (per_neuron,)), Synapse("a"))),
        Layer("c", Sum(), (6, 3), (Synapse("b", (second, per_channel)),)),
        Layer("d", IF(dyadic(rng, (6, 1)) + 2), (6, 3), (Synapse("c", (rows,)), Synapse("c"))),
        Layer("e", Sum(), (18,), (Synapse("d", (Flatten("f"), Scale("g", dyadic(rng, (18,))))),)),
    )  # fmt: skip
    contract = Contract(5, input_scale=0.25, input_levels=4)
    is_the_reference(Network("in", (2, 9), layers, "e", contract), ISAS)


def test_images_that_become_rows() -> None:
    rng = np.random.default_rng(7)
    rows = Flatten("rows", 1, 2)
    conv = Conv1d("conv", dyadic(rng, (4, 3, 5)), dyadic(rng, (4,)), 3, 2)
    times = Scale("times", dyadic(rng, (3, 2, 3)))
    row = Scale("row", dyadic(rng, (6,)))
    layers = (
        Layer("a", LIFS, (3, 2, 3), (Synapse("in", (times,)),)),
        Layer("b", LIFS, (4, 2), (Synapse("a", (times, replace(rows, name="r"), conv)),)),
        Layer("c", LIFS, (3, 6), (Synapse("a", (rows, row)), Synapse("in", (rows,)))),
        Layer("d", Sum(), (3, 6), (Synapse("c"), Synapse("c", (row,)))),
    )
    contract = Contract(4, input_scale=0.25, input_levels=9)
    for output in ("b", "d"):
        is_the_reference(Network("in", (3, 2, 3), layers, output, contract), ISAS)


def test_leaky_integrators_feed_on_real_numbers() -> None:
    rng = np.random.default_rng(2)
    li = LI(single(0.5), leak=single(0.125))
    cuba = CubaLI(single(0.5), single(0.25), gain=single(2))
    conv = Conv("conv", dyadic(rng, (67, 2, 2, 2), 2), None)
    layers = (
        Layer("a", li, (67, 2, 3), (Synapse("in", (conv,)),)),
        Layer("b", LIFS, (67, 1, 2), (Synapse("a", (SumPool("p", (2, 2), (1, 1)),)),)),
        Layer("c", cuba, (67, 2, 3), (Synapse("a"), Synapse("a", (Delay("w", 1),)))),
        Layer("d", li, (3,), (Synapse("c", (Flatten("f"), dense(rng, "m", 3, 402))),)),
    )
    contract = Contract(3, input_scale=0.5, input_levels=2)
    for output in ("a", "b", "c", "d"):
        is_the_reference(Network("in", (2, 3, 4), layers, output, contract), ISAS)


def loops() -> dict[str, Network]:
    """Networks with recurrent synapses, of which some tear a layer's block in two."""
    rng = np.random.default_rng(3)
    enter = dense(rng, "enter", 70, 6)
    cuba = CubaLIF(single(0.5), single(0.75), single(2), leak=single(0.125))
    late = Contract(7, reset="subtract", reset_time="next_after_decay")
    plain = Contract(7, compare="ge")

    def net(layers: list[Layer], contract: Contract, shape: tuple[int, ...] = (6,)) -> Network:
        contract = replace(contract, input_scale=0.25, input_levels=6)
        return Network("in", shape, tuple(layers), layers[-1].name, contract)

    def out(source: str, size: int) -> Layer:
        return Layer("out", LI(single(0.5)), (3,), (Synapse(source, (dense(rng, "o", 3, size),)),))

    image = Conv("image", dyadic(rng, (66, 1, 3, 2)), dyadic(rng, (66,)), padding=(1, 1))
    around = Conv("around", dyadic(rng, (66, 33, 3, 3)), dyadic(rng, (66,)), (1, 1), (1, 1),
                  (1, 1), 2)  # fmt: skip
    own = Synapse("a", (dense(rng, "own", 70, 70),))
    return {
        "itself": net([Layer("a", LIFS, (70,), (Synapse("in", (enter,)), own)),
                       out("a", 70)], plain),
        "bare": net([Layer("a", cuba, (70,), (Synapse("in", (enter,)), Synapse("a"))),
                     out("a", 70)], late),
        "first": net([Layer("a", cuba, (70,), (own, Synapse("in", (enter,)))), out("a", 70)], late),
        "delayed": net([Layer("a", LIFS, (70,), (
            Synapse("in", (enter, Delay("d", 1))),
            Synapse("a", (dense(rng, "x", 9, 70), Delay("e", 2), dense(rng, "y", 70, 9))),
        )), out("a", 70)], plain),
        "two": net([
            Layer("a", LIFS, (70,), (Synapse("in", (enter,)), Synapse("b", (
                Scale("s", single(-0.5)), dense(rng, "ba", 70, 5))))),
            Layer("b", cuba, (5,), (Synapse("a", (dense(rng, "ab", 5, 70),)),)),
            out("b", 5),
        ], late),
        "through a sum": net([
            Layer("in0", LIFS, (70,), (Synapse("in", (enter,)),)),
            Layer("s", Sum(), (70,), (Synapse("in0"), Synapse("a", (Delay("d", 1),)))),
            Layer("a", LIFS, (70,), (Synapse("s"), Synapse("in0", (Scale("t", single(2)),)))),
            Layer("a2", LIFS, (70,), (Synapse("a"),)),
            out("a2", 70),
        ], plain),
        "image": net([
            Layer("a", LIFS, (66, 3, 3), (Synapse("in", (image,)), Synapse("a", (around,)))),
            Layer("p", Sum(), (66, 1, 2), (Synapse("a", (SumPool("pool", (3, 2), (1, 1)),)),)),
            Layer("out", Sum(), (132,), (Synapse("p", (Flatten("f"),)),)),
        ], plain, (1, 3, 2)),
        "a graded loop": net([
            Layer("a", LI(single(0.5)), (4,), (Synapse("in", (dense(rng, "e4", 4, 6),)),
                                               Synapse("b", (dense(rng, "ba4", 4, 4),)))),
            Layer("b", Threshold(single(0.5)), (4,), (Synapse("a"), Synapse("b", (
                Delay("d", 1), Scale("s", dyadic(rng, (4,))))))),
            out("a", 4),
        ], plain),
        "two loops": net([
            Layer("a", LIFS, (70,), (Synapse("in", (enter,)), own)),
            Layer("b", LIFS, (70,), (Synapse("a"), Synapse("b", (Scale("s", single(-1)),)))),
            out("b", 70),
        ], plain),
    }  # fmt: skip


@pytest.mark.parametrize("name", loops())
def test_loops(name: str) -> None:
    network = loops()[name]
    is_the_reference(network, ISAS)
    last = simulate(network, frames(network, 5, 3), 7)
    for layer in network.layers[:-1]:
        late = any(network.late(layer, synapse) for synapse in layer.synapses)
        assert not late or last.fired[layer.name].any()


def off_the_grid(network: Network) -> Network:
    """Weights whose sums depend on their order."""
    rng = np.random.default_rng(0)

    def other(operation: Operation) -> Operation:
        if not isinstance(operation, (Dense, Conv)):
            return operation
        weight = operation.weight * rng.uniform(0.5, 1, operation.weight.shape).astype(np.float32)
        return replace(operation, weight=weight)

    layers = []
    for layer in network.layers:
        synapses = tuple(
            replace(synapse, operations=tuple(map(other, synapse.operations)))
            for synapse in layer.synapses
        )
        layers.append(replace(layer, synapses=synapses))
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize("name", loops())
def test_off_the_grid_neither_batch_nor_tile_nor_machine_changes_a_bit(name: str) -> None:
    network = off_the_grid(loops()[name])
    x = np.random.default_rng(1).normal(0.5, 1, (7, 21, *network.input_shape)).astype(np.float32)
    session = PLUGIN.open(network, None)
    whole = session.run(x, 7, Record(None, 21))
    for isa in ISAS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SNNPIPE_ISA", isa)
            trace = PLUGIN.open(network, None).run(x, 7, Record(None, 21))
        assert differences(trace, whole) == []
    for size in (1, 4):
        parts = [
            session.run(np.ascontiguousarray(x[:, i : i + size]), 7, Record(None, size))
            for i in range(0, 21, size)
        ]
        assert differences(join(parts), whole) == []
    flat = [np.ascontiguousarray(x.reshape(7, 21, -1))]
    plan: Any = session.plan
    once = plan.run(flat, 7, currents=4, membranes=2, tile=21)
    for tile in (1, 2, 5):
        again = plan.run(flat, 7, currents=4, membranes=2, tile=tile)
        np.testing.assert_array_equal(again[0], once[0])
        for one, other in zip(again[1:], once[1:], strict=True):
            assert one.keys() == other.keys()
            for group, values in one.items():
                np.testing.assert_array_equal(values, other[group])


def test_what_enters_a_loop_is_summed_before_it() -> None:
    lowered = {}
    for name, network in loops().items():
        lowering = Lowering(network, engine.FloatBuilder(), "event")
        lowering.lower()
        lowered[name] = (lowering.groups, lowering.loops)
    assert lowered["itself"] == ({"in": 0, "a": 2, "out": 3}, [(2, 2)])  # 1: the relay
    assert lowered["first"] == ({"in": 0, "a": 2, "out": 3}, [(2, 2)])
    assert lowered["two loops"] == ({"in": 0, "a": 2, "b": 3, "out": 4}, [(2, 2), (3, 3)])
    assert lowered["delayed"] == ({"in": 0, "a": 3, "out": 4}, [(2, 3)])  # 2: a relay inside


def test_every_part_is_handled_or_refused() -> None:
    for runtime in (PLUGIN, LOIHI):
        assert set(runtime.table) == set(PARTS)
    assert set(PLUGIN.table.values()) == {None}
    assert {part for part, reason in LOIHI.table.items() if reason} == {AvgPool, *FLOAT_ONLY}


def with_part(part: type) -> Network:
    """A network in integers but for one part."""
    some: dict[type, Neuron] = {
        LI: LI(single(0.5)),
        CubaLI: CubaLI(single(0.5), single(0.5)),
        Threshold: Threshold(single(9)),
    }
    chains: dict[type, tuple[Operation, ...]] = {
        Conv1d: (Conv1d("part", np.full((2, 2, 1), 2, np.float32)),),
        Scale: (Scale("part", single(2)),),
        AvgPool: (AvgPool("part", (1, 1), (1, 1)),),
    }
    shape = (2, 3, 1) if part is AvgPool else (2, 3)
    own = some.get(part, LIF(single(0.5), single(9)))
    layer = Layer("part", own, shape, (Synapse("in", chains.get(part, ())),))
    contract = Contract(3, arithmetic=Integer(8, {"part": 0}))
    return Network("in", shape, (layer,), "part", contract)


@pytest.mark.parametrize("runtime", [PLUGIN, LOIHI])
@pytest.mark.parametrize("part", [AvgPool, *FLOAT_ONLY])
def test_integers_refuse_what_they_do_not_have_by_name(part: type, runtime: Any) -> None:
    assert runtime.open(with_part(LIF), None).run(np.ones((1, 2, 3), np.float32), 3).steps == 3
    with pytest.raises(
        RequestError, match=f"runtime '{runtime.name}' cannot run.*'part'"
    ) as caught:
        runtime.open(with_part(part), None)
    assert caught.value.code == "E_UNSUPPORTED"
    assert str(LOIHI.table[part]) in caught.value.message
