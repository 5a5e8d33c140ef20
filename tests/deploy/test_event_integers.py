"""The engine's integers against the reference: every field of the Trace, overflows included."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import (
    corner_hits,
    integer_frames,
    integer_networks,
    random_integer_network,
)
from snnpipe.deploy.runtimes.event import PLUGIN
from snnpipe.errors import RequestError
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
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
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace, join
from trace_equality import differences

engine = pytest.importorskip(
    "snnpipe.deploy.engine._engine", reason="the event engine is not built here"
)
WIDEST = engine.build_info()["isa"]
ISAS = ["base", "v3", "v4"][: 1 + ["base", "v3", "v4"].index(WIDEST)]
PROFILES = st.fixed_dictionaries(
    {"overflow": st.booleans(), "legal_for_lava": st.booleans()}
).flatmap(lambda profile: integer_networks(**profile))


def f32(*values: Any) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def run(network: Network, x: np.ndarray, isa: str = "", steps: int | None = None) -> Trace:
    """The engine's Trace under a forced instruction set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNPIPE_ISA", isa)
        session = PLUGIN.open(network, None)
    return session.run(x, steps or network.contract.steps, Record(3, 5))


def is_the_reference(network: Network, x: np.ndarray, isa: str = "") -> Trace:
    """The reference's trace, and the engine's is the same."""
    trace = simulate(network, x, network.contract.steps, Record(3, 5))
    found = run(network, x, isa)
    assert differences(found, trace) == []
    assert found.overflows is not None
    assert found.overflows == trace.overflows
    return trace


def agree(network: Network, seed: int, moving: bool, isa: str) -> None:
    x = integer_frames(network, 5, seed, network.contract.steps if moving else None)
    whole = is_the_reference(network, x, isa)
    parts = [x[..., n : n + 1, *[slice(None)] * len(network.input_shape)] for n in range(5)]
    alone = join([run(network, np.ascontiguousarray(part), isa) for part in parts])
    assert alone.overflows == whole.overflows
    assert alone.outputs.tobytes() == whole.outputs.tobytes()


@settings(max_examples=120, derandomize=True, deadline=None)
@given(PROFILES, st.integers(0, 2**20), st.booleans(), st.sampled_from(ISAS))
def test_every_field_is_the_references(network: Network, seed: int, moving: bool, isa: str) -> None:
    agree(network, seed, moving, isa)


@pytest.mark.slow
@settings(max_examples=2000, derandomize=True, deadline=None)
@given(PROFILES, st.integers(0, 2**20), st.booleans(), st.sampled_from(ISAS))
def test_2000_networks_agree_in_every_bit(
    network: Network, seed: int, moving: bool, isa: str
) -> None:
    agree(network, seed, moving, isa)


@pytest.mark.parametrize("legal", [False, True])
def test_the_draw_meets_every_corner(legal: bool) -> None:
    hits: Counter[str] = Counter()
    counted = 0
    for seed in range(60):
        network = random_integer_network(seed, overflow=True, legal_for_lava=legal)
        x = integer_frames(network, 4, seed, network.contract.steps if seed % 2 else None)
        hits += corner_hits(network, x, network.contract.steps)
        counted += sum((run(network, x).overflows or {}).values())
    corners = {"wraps", "below", "above", "at_threshold", "floors"}
    assert {corner for corner in corners if hits[corner] < 50} == set(), hits
    assert legal or hits["conv_wraps"] > 0
    assert counted >= hits["wraps"]


def test_networks_without_overflow_are_proven_and_count_nothing() -> None:
    for seed in range(40):
        network = random_integer_network(seed, legal_for_lava=seed % 2 == 0)
        check(network, "integer")
        x = integer_frames(network, 3, seed)
        assert run(network, x).overflows == {}
        hits = corner_hits(network, x, network.contract.steps)
        assert hits["wraps"] == hits["conv_wraps"] == 0


def test_what_lava_cannot_express_stays_out_of_its_profile() -> None:
    seen: Counter[Any] = Counter()
    for seed in range(150):
        network = random_integer_network(seed, legal_for_lava=True, overflow=seed % 2 == 0)
        contract = network.contract
        assert (contract.compare, contract.reset) == ("gt", "value")
        seen.update(type(layer.neuron) for layer in network.layers)
        for layer, synapse, operation in network.operations():
            seen[type(operation)] += 1
            seen["late"] += network.late(layer, synapse)
            maps = [op for op in synapse.operations if not isinstance(op, Flatten | Delay)]
            assert len(maps) <= 1
            assert not isinstance(operation, SumPool)
            if isinstance(operation, Conv):
                assert Delay not in map(type, synapse.operations)
                assert not contract.arithmetic.weight_exponents.get(operation.name, 0)
        inner = [layer for layer in network.layers if layer.name != network.output]
        assert not any(isinstance(layer.neuron, Sum) for layer in inner)
    wanted = [IF, LIF, CubaLIF, Sum, Dense, Conv, Delay, "late"]
    assert {part for part in wanted if seen[part] < 10} == set(), seen


def one(name: str, neuron: Any, *synapses: Synapse, shape: tuple[int, ...] = (1,)) -> Layer:
    return Layer(name, neuron, shape, synapses)


def integer(
    *layers: Layer, shape: tuple[int, ...] = (1,), exponents: Any = None, **contract: Any
) -> Network:
    arithmetic = Integer(8, {layer.name: 0 for layer in layers}, {}, exponents or {})
    own = Contract(**{"steps": 4, "arithmetic": arithmetic, **contract})
    return Network("in", shape, layers, layers[-1].name, own)


WRAPPING = Conv("c", np.full((2, 1, 1, 1), 256.0, np.float32))


def test_a_wrap_of_what_never_changes_counts_at_every_step() -> None:
    """2 x 2 pixels of 40,000 times 256 leave 24 bits in both channels, 8 sums a step; a relay
    computes them once (before the pool) or an edge keeps them (into the neuron)."""
    pool = (WRAPPING, SumPool("p", (2, 2), (2, 2)))
    low = LIF(f32(0), f32(131071))
    for operations, shape in ((pool, (2, 1, 1)), ((WRAPPING,), (2, 2, 2))):
        network = integer(
            one("a", low, Synapse("in", operations), shape=shape), shape=(1, 2, 2),
            exponents={"c": -10}, input_levels=40000,
        )  # fmt: skip
        x = np.full((3, 1, 2, 2), 40000, np.float32)
        trace = is_the_reference(network, x)
        assert trace.overflows == {"a": 3 * 8 * 4}
        moving = is_the_reference(network, np.repeat(x[None], 4, axis=0))
        assert moving.overflows == trace.overflows
        late = (Delay("d", 3), *operations)
        delayed = replace(network, layers=(one("a", low, Synapse("in", late), shape=shape),))
        assert is_the_reference(delayed, x).overflows == {"a": 3 * 8 * 1}


def test_a_run_longer_than_the_contracts_is_counted_though_that_is_proven() -> None:
    """An IF that falls by 255 * 64 * 128 a step reaches the rail in its fifth."""
    dense = Dense("w", f32([[-255]]))
    network = integer(
        one("a", IF(f32(9)), Synapse("in", (dense,))), exponents={"w": 7}, input_levels=1
    )
    check(network, "integer")
    x = np.ones((2, 1), np.float32)
    assert run(network, x).overflows == {}
    longer = run(network, x, steps=9)
    assert longer.overflows == {"a": 2 * (9 - 4)}
    assert longer.overflows == simulate(network, x, 9).overflows


def test_a_readout_counts_where_its_sum_does_not_fit_a_membrane() -> None:
    dense = Dense("w", f32([[250], [-250], [2]]))
    network = integer(
        one("a", Sum(), Synapse("in", (dense,)), shape=(3,)), exponents={"w": 8}, steps=6
    )
    trace = is_the_reference(network, np.ones((2, 1), np.float32))
    # 250 * 256 * 64 a step: the third passes 2^23 - 1.
    assert trace.overflows == {"a": 2 * 2 * 4}
    assert trace.until(5).overflows is None
    assert trace.until(6).overflows == trace.overflows
    with pytest.raises(RequestError, match="the read-out 'a' can add up to 24576000"):
        check(network, "integer")
    check(network, "integer", "count")


def test_a_subtracted_threshold_saturates_above() -> None:
    """A membrane that loses less than it gains climbs to the rail, where it counts."""
    dense = Dense("w", f32([[255]]))
    neuron = IF(f32(100))
    for reset, expected in (("subtract", {"a": 3}), ("value", {})):
        network = integer(
            one("a", neuron, Synapse("in", (dense,))), exponents={"w": 8}, reset=reset, steps=5
        )
        assert is_the_reference(network, np.ones((1, 1), np.float32)).overflows == expected


def test_a_loop_through_a_sum_runs_and_sums_that_feed_each_other_are_refused() -> None:
    weight = Dense("w", f32([[30]]))
    layers = (
        one("a", IF(f32(20)), Synapse("in", (weight,)), Synapse("s", (Dense("b", f32([[-2]])),))),
        one("s", Sum(), Synapse("a"), Synapse("a", (Dense("x", f32([[3]])),))),
        one("r", Sum(), Synapse("s")),
    )
    trace = is_the_reference(integer(*layers, steps=6), np.ones((2, 1), np.float32))
    assert 0 < trace.fired["a"].sum() < 12
    looped = (
        one("s", Sum(), Synapse("in"), Synapse("t", (Delay("d", 1),))),
        one("t", Sum(), Synapse("s")),
    )
    with pytest.raises(RequestError, match="feed each other"):
        PLUGIN.open(integer(*looped), None)


def test_the_host_sees_delays() -> None:
    """A host layer's current with a delay before and behind its bias, from still and moving
    inputs; batches of it are computed in parts."""
    dense = Dense("w", f32([[0.5, -0.25], [1.5, 0.75]]), f32(0.25, -0.5))
    for operations in ((Delay("d", 2), dense), (dense, Delay("d", 2)), (Delay("d", 9), dense)):
        layer = one("a", LIF(f32(0.5), f32(60)), Synapse("in", operations), shape=(2,))
        arithmetic = Integer(8, {"a": 2}, {"a": 40})
        contract = Contract(5, input_scale=0.25, input_levels=8, arithmetic=arithmetic)
        network = Network("in", (2,), (layer,), "a", contract)
        for moving in (None, 5):
            is_the_reference(network, integer_frames(network, 700, 1, moving))


def test_sums_beyond_32_bits_are_refused_by_both() -> None:
    dense = Dense("w", np.full((1, 300), 255, np.float32))
    layer = one("a", IF(f32(9)), Synapse("in", (dense,)))
    network = integer(layer, shape=(300,), input_levels=255)
    with pytest.raises(RequestError, match="can add up to 19507500; expected at most 16777216"):
        check(network, "integer", "count")
    with pytest.raises(RequestError, match="the sum into one neuron may reach 19507500"):
        PLUGIN.open(network, None)
    wide = replace(layer, neuron=CubaLIF(f32(4095 / 4096), f32(0.5), f32(9)))
    wide = integer(wide, shape=(300,), input_levels=200)
    check(wide, "integer", "count")
    with pytest.raises(RequestError, match="the sum into one neuron may reach"):
        PLUGIN.open(wide, None)


def test_each_rule_changes_a_run() -> None:
    """The comparison can fail: every part leaves its mark on this run. It begins with 6 >> 1 = 3,
    a membrane exactly at the threshold."""
    dense = Dense("w", f32([[6, -4], [-10, 8]]))
    layer = one("a", CubaLIF(f32(0.5), f32(0.75), f32(3)), Synapse("in", (dense,)), shape=(2,))
    network = integer(layer, shape=(2,), exponents={"w": -1}, steps=6)
    x = np.float32([[[1, 0]], [[1, 1]], [[1, 1]], [[0, 1]], [[1, 0]], [[0, 1]]])
    trace = is_the_reference(network, x)
    changed = {
        "compare": replace(network.contract, compare="ge"),
        "reset": replace(network.contract, reset="subtract"),
        "exponent": replace(network.contract, arithmetic=Integer(8, {"a": 0}, {}, {"w": -2})),
    }
    edits = {name: network.with_contract(contract) for name, contract in changed.items()}
    for name, neuron in {
        "du": replace(layer.neuron, synaptic_decay=f32(0.25)),
        "dv": replace(layer.neuron, decay=f32(0.5)),
        "threshold": replace(layer.neuron, threshold=f32(2)),
    }.items():
        edits[name] = replace(network, layers=(replace(layer, neuron=neuron),))
    late = replace(layer, synapses=(Synapse("in", (Delay("d", 1), dense)),))
    edits["delay"] = replace(network, layers=(late,))
    loop = replace(
        layer, synapses=(*layer.synapses, Synapse("a", (Dense("b", f32([[2, 4], [4, 2]])),)))
    )
    edits["loop"] = replace(network, layers=(loop,))
    for name, edit in edits.items():
        found = is_the_reference(edit, x)
        assert differences(found, trace) != [], name
    assert differences(replace(trace, overflows={"a": 1}), trace) == ["overflows: {'a': 1} {}"]
