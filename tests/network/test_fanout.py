"""Fan-outs by closed form against brute force, and operation counts against known figures."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import toy_network
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract
from snnpipe.network.fanout import (
    dense_macs,
    fan_out,
    is_graded,
    synapse_counts,
    synaptic_operations,
)
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Scale,
    SumPool,
    Synapse,
    Weighted,
)
from snnpipe.network.linear import apply, through
from snnpipe.network.neurons import IF, Spiking, Sum
from snnpipe.network.shapes import shape_after
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack
from through_time import through_time

SHAPE = (4, 5, 6)


def spiking() -> IF:
    return IF(np.array(1.0, np.float32))


def support(synapse: Synapse, nonzero: bool) -> Synapse:
    """Weights of 0 and 1, no biases."""

    def ones(operation):
        if isinstance(operation, Scale):
            kept = (operation.scale != 0) if nonzero else np.ones_like(operation.scale)
            return replace(operation, scale=kept.astype(np.float32))
        if not isinstance(operation, Weighted):
            return operation
        weight = (operation.weight != 0) if nonzero else np.ones_like(operation.weight)
        return replace(operation, weight=weight.astype(np.float32), bias=None)

    return replace(synapse, operations=tuple(ones(op) for op in synapse.operations))


def one_by_one(synapse: Synapse, shape, nonzero: bool = False) -> np.ndarray:
    """Distinct targets that each element reaches alone."""
    n = int(np.prod(shape))
    alone = np.eye(n).reshape(n, *shape)
    reached = through(support(synapse, nonzero), alone) > 0
    return reached.reshape(n, -1).sum(axis=1).reshape(shape)


def loops(conv: Conv, shape) -> np.ndarray:
    """Stored synapses per element of a convolution, written as its definition."""
    counts = np.zeros(shape, np.int64)
    out, per_group, kh, kw = conv.weight.shape
    _, oh, ow = shape_after(conv, shape)
    for o, i, y, x, j, k in product(*map(range, (out, per_group, oh, ow, kh, kw))):
        row = y * conv.stride[0] - conv.padding[0] + j * conv.dilation[0]
        column = x * conv.stride[1] - conv.padding[1] + k * conv.dilation[1]
        if 0 <= row < shape[1] and 0 <= column < shape[2]:
            counts[o // (out // conv.groups) * per_group + i, row, column] += 1
    return counts


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    least = [max(0, -(-(d * (k - 1) + 1 - n) // 2)) for k, d, n in
             zip(kernel, dilation, SHAPE[1:], strict=True)]  # fmt: skip
    padding = tuple(low + draw(st.integers(0, 2)) for low in least)
    stride = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-1, 2, (groups * draw(st.integers(1, 3)), 4 // groups, *kernel))
    return Conv("conv", weight.astype(np.float32), None, stride, padding, dilation, groups)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(convolutions())
def test_convolution_closed_form_is_the_definition(conv):
    synapse = Synapse("input", (conv,))
    counts = fan_out(synapse, SHAPE)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, loops(conv, SHAPE))
    for nonzero in (False, True):
        np.testing.assert_array_equal(
            fan_out(synapse, SHAPE, nonzero), one_by_one(synapse, SHAPE, nonzero)
        )
    ones = support(synapse, False).operations[0]
    assert counts.sum() == apply(ones, np.ones((1, *SHAPE), np.float32)).sum()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    convolutions(),
    st.sampled_from(["pool conv", "conv pool", "pool dense", "pool pool", "pool", "conv flatten"]),
    st.sampled_from([((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 0)), ((2, 3), (3, 2), (1, 1))]),
    st.integers(0, 2**32 - 1),
)
def test_pools_merge_with_the_map_beside_them(conv, form, window, seed):
    pool, other = SumPool("pool", *window), AvgPool("other", (1, 2), (2, 1))
    chain, shape = [], SHAPE
    for word in form.split():
        if word == "dense":
            chain.append(Flatten("flat"))
            size = int(np.prod(shape))
            weight = np.random.default_rng(seed).integers(-1, 2, (7, size))
            operation = Dense("fc", weight.astype(np.float32))
            shape = (size,)
        elif word == "flatten":
            operation = Flatten("rows", 1, 2)
        elif word == "conv":
            sizes = zip(conv.padding, conv.dilation, conv.weight.shape[2:], strict=True)
            fit = [max(p, d * (k - 1)) for p, d, k in sizes]
            operation = replace(conv, padding=tuple(fit))
        else:
            operation = other if pool in chain else pool
            if operation is pool and min(shape[1:]) < 2:
                operation = SumPool("pool", (1, 1), (1, 2))
        chain.append(operation)
        shape = shape_after(operation, shape)
    synapse = Synapse("input", tuple(chain))
    for nonzero in (False, True):
        np.testing.assert_array_equal(
            fan_out(synapse, SHAPE, nonzero), one_by_one(synapse, SHAPE, nonzero)
        )


def test_two_weighted_maps_in_a_row_count_distinct_targets():
    rng = np.random.default_rng(5)
    first = Conv("a", rng.integers(-1, 2, (3, 2, 2, 3)).astype(np.float32), None, (2, 1), (1, 0))
    second = Conv("b", rng.integers(-1, 2, (5, 3, 2, 2)).astype(np.float32))
    fc = Dense("fc", rng.integers(-1, 2, (4, 5 * 3 * 4)).astype(np.float32))
    shape = (2, 7, 7)
    chain = Synapse("input", (first, second, Flatten("flat"), fc))
    assert fan_out(chain, shape).max() == 4
    shorter = replace(chain, operations=(first, second))
    for synapse, nonzero in product((chain, shorter), (False, True)):
        np.testing.assert_array_equal(
            fan_out(synapse, shape, nonzero), one_by_one(synapse, shape, nonzero)
        )


def test_a_merged_path_is_counted_once():
    # Windows of 3 at stride 1 overlap: the middle of five lies in all three of them, but the
    # dense map behind has only two neurons to reach.
    pool = SumPool("pool", (1, 3), (1, 1))
    fc = Dense("fc", np.array([[1, 0, 0], [0, 0, 1]], np.float32))
    synapse = Synapse("input", (pool, Flatten("flat"), fc))
    assert fan_out(synapse, (1, 1, 5)).tolist() == [[[2, 2, 2, 2, 2]]]
    assert fan_out(synapse, (1, 1, 5), nonzero=True).tolist() == [[[1, 1, 2, 1, 1]]]


def test_identity_flatten_and_leading_flatten():
    assert (fan_out(Synapse("input"), (2, 3)) == 1).all()
    assert (fan_out(Synapse("input", (Flatten("flat"),)), (2, 3, 4)) == 1).all()
    # Four axes are joined to three before a convolution: the counts keep the source's shape.
    conv = Conv("conv", np.ones((5, 6, 2, 2), np.float32))
    counts = fan_out(Synapse("input", (Flatten("join", 0, 1), conv)), (2, 3, 4, 4))
    assert counts.shape == (2, 3, 4, 4)
    assert counts[1, 2, 0].tolist() == [5, 10, 10, 5]


def test_elements_that_no_window_holds_have_none():
    conv = Conv("conv", np.ones((1, 1, 1, 1), np.float32), stride=(2, 3))
    assert fan_out(Synapse("input", (conv,)), (1, 3, 5))[0].tolist() == [
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0],
    ]


def test_toy_network_by_hand():
    network = toy_network.network()
    trace = simulate(network, toy_network.frame(), toy_network.STEPS)
    spikes = {name: count.reshape(4, -1).sum(1).tolist() for name, count in trace.fired.items()}
    assert spikes == {
        "input": [3, 3, 3, 3],
        "one": [8, 21, 12, 26],
        "two": [0, 6, 6, 8],
        "three": [0, 0, 3, 3],
    }
    maps = [fan_out(layer.synapses[0], network.shape_of(layer.synapses[0].source))
            for layer in network.layers]  # fmt: skip
    assert maps[0][0].tolist() == [[8, 12, 12, 8], [12, 18, 18, 12], [12, 18, 18, 12],
                                   [8, 12, 12, 8]]  # fmt: skip
    for channel in maps[1]:
        assert channel.tolist() == [[2, 4, 2, 2], [4, 8, 4, 4], [2, 4, 2, 2], [2, 4, 2, 2]]
    assert (maps[2] == 3).all()
    counts = synaptic_operations(network, trace.fired)
    assert counts["two"].synops.tolist() == [26, 68, 42, 84]
    assert counts["three"].synops.tolist() == [0, 18, 18, 24]
    assert sum(c.synops.sum() for c in counts.values()) == 280 == 220 + 60
    assert counts["one"].mac_dense.tolist() == [200] * 4  # 800 in all
    assert counts["one"].mac_nz.sum() == 136
    assert counts["one"].synops.sum() == counts["two"].mac_dense.sum() == 0
    assert dense_macs(network) == {"one": 200, "two": 100, "three": 24}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_one_axis_and_scales_are_counted_like_the_rest(conv, seed):
    """A convolution over one axis behind delays, and scales: alone, and with a pool or a map."""
    rng = np.random.default_rng(seed)
    stride, dilation = conv.stride[1], conv.dilation[1]
    wide = dilation * (conv.weight.shape[3] - 1)  # fits any length
    one = Conv1d("one", conv.weight[:, :, 0], None, stride, wide, dilation, conv.groups)
    scale = Scale("s", rng.integers(-1, 2, (SHAPE[0], 1, SHAPE[2])).astype(np.float32))
    pool, line = SumPool("p", (2, 2), (1, 2)), (SHAPE[0], SHAPE[1] * SHAPE[2])
    for shape, chain in (
        (line, (Delay("d", 2), one, Delay("e", 1))),
        (SHAPE, (Flatten("f", 1, 2), one)),
        (SHAPE, (scale,)),
        (SHAPE, (Delay("d", 2), scale, Flatten("f"))),
        (SHAPE, (scale, pool)),
        (SHAPE, (scale, Flatten("f", 1, 2), one)),
    ):
        synapse = Synapse("input", chain)
        for nonzero in (False, True):
            expected = one_by_one(synapse, shape, nonzero)
            np.testing.assert_array_equal(fan_out(synapse, shape, nonzero), expected)


def test_multiplications_of_one_axis_and_scales_by_hand():
    conv = Conv1d("c", np.ones((4, 1, 3), np.float32), None, 2, 1, 1, 2)
    scale = Scale("s", np.array([[1], [0], [2], [3]], np.float32))
    layers = (
        Layer("a", spiking(), (4, 3), (Synapse("input", (conv,)),)),
        Layer("b", spiking(), (4, 3), (Synapse("a", (scale,)),)),
    )
    network = Network("input", (2, 5), layers, "b", Contract(2))
    # Windows at 0, 2 and 4 of 5 elements between two of padding: 2 + 3 + 2, for 4 outputs.
    assert dense_macs(network) == {"a": 28, "b": 12}
    fired = {name: np.ones((2, *network.shape_of(name)), np.int64) for name in ("input", "a", "b")}
    counts = synaptic_operations(network, fired)
    assert (counts["a"].mac_nz.tolist(), counts["b"].synops.tolist()) == ([28, 28], [12, 12])
    assert counts["b"].synops_eff.tolist() == [9, 9]


def test_zero_weights_are_stored_but_not_effective():
    network = toy_network.network()
    weight = np.zeros((3, 8), np.float32)
    weight[0] = 0.5
    fc = replace(network.layers[2].synapses[0].operations[1], weight=weight)
    synapse = Synapse("two", (Flatten("flat"), fc))
    layers = (*network.layers[:2], replace(network.layers[2], synapses=(synapse,)))
    network = replace(network, layers=layers)
    fired = simulate(network, toy_network.frame(), 4).fired
    counts = synaptic_operations(network, fired)["three"]
    assert (counts.synops.sum(), counts.synops_eff.sum()) == (60, 20)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks())
def test_all_firing_once_is_one_dense_pass(network):
    """Every population fires once everywhere: synaptic operations are the dense products."""
    network = network.with_contract(replace(network.contract, input_coding="spikes"))
    fired = {name: np.zeros((6, *network.shape_of(name)), np.int64)
             for name in [network.input, *network.by_name]}  # fmt: skip
    for counts in fired.values():
        counts[0] = 1
    dense = dense_macs(network)
    checked = 0
    for count in synapse_counts(network, fired):
        layer = network.layer(count.layer)
        synapse = next(s for s in layer.synapses if s.source == count.source)
        pooled = any(isinstance(op, SumPool | AvgPool) for op in synapse.operations)
        if len(layer.synapses) > 1 or len(synapse.weighted) != 1 or pooled:
            continue
        work = count.operations
        late = sum(op.steps for op in synapse.operations if isinstance(op, Delay))
        got = work.mac_dense if count.graded else work.synops
        assert int(got[late]) == dense[layer.name]
        assert count.graded or int(got.sum()) == dense[layer.name]
        checked += 1
    assume(checked)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks(), st.integers(0, 1000))
def test_effective_operations_are_those_of_a_run_with_ones(network, seed):
    """Non-zero inputs and weights set to one, outputs summed (the rule of arXiv:2304.04640)."""
    steps, samples = 3, 2
    x = frames(network, samples, seed, steps)
    trace = simulate(network, x, steps)
    checked = 0
    counts = iter(synapse_counts(network, trace.fired, samples))
    for layer in network.layers:
        for synapse in layer.synapses:
            count = next(counts)
            source = synapse.source
            pooled = any(isinstance(op, (SumPool, AvgPool)) for op in synapse.operations)
            if source == network.input:
                values = x != 0
            elif isinstance(network.layer(source).neuron, Spiking):
                values = unpack(trace.spikes[source], network.shape_of(source))
            else:
                continue
            if pooled or len(synapse.weighted) != 1:
                continue
            late, ones = network.late(layer, synapse), support(synapse, True)
            for t, arriving in enumerate(through_time(ones, values.astype(np.float64), late)):
                work = count.operations
                got = work.mac_nz[t] if source == network.input else work.synops_eff[t]
                assert int(got) == int(arriving.sum())
                checked += 1
    assume(checked)  # a network whose every map stands behind a pool shows nothing


def test_graded_sources_multiply_and_identities_add():
    fc = Dense("fc", np.array([[1, 0], [2, 3], [0, 5]], np.float32))
    layers = (
        Layer("a", spiking(), (2,), (Synapse("input"),)),
        Layer("b", spiking(), (2,), (Synapse("a"),)),
        Layer("join", Sum(), (2,), (Synapse("a"), Synapse("b"))),
        Layer("c", spiking(), (3,), (Synapse("join", (fc,)),)),
        Layer("out", Sum(), (3,), (Synapse("c"),)),
    )
    network = Network("input", (2,), layers, "out", Contract(2))
    fired = {
        "input": np.array([[5, 4], [5, 4]]),
        "a": np.array([[3, 1], [0, 2]]),
        "b": np.array([[1, 0], [0, 2]]),
        "join": np.array([[4, 1], [0, 2]]),
        "c": np.array([[1, 0, 2], [0, 0, 3]]),
        "out": np.array([[1, 0, 2], [0, 0, 3]]),
    }
    counts = synaptic_operations(network, fired, samples=5)
    assert counts["a"].synops.tolist() == [9, 9]  # nothing is multiplied
    assert counts["b"].synops.tolist() == [4, 2]
    assert counts["join"].synops.tolist() == [0, 0]  # paid for by the map behind it
    assert counts["c"].synops.tolist() == [0, 0]
    assert counts["c"].mac_dense.tolist() == [30, 30]  # 6 weights, 5 samples
    assert counts["c"].mac_nz.tolist() == [4 * 2 + 1 * 2, 2 * 2]
    assert counts["out"].synops.tolist() == [3, 3]  # the read-out accumulates
    assert [is_graded(network, name) for name in ("input", "a", "join")] == [True, False, True]


@pytest.mark.parametrize(
    ("coding", "levels", "graded"),
    [("direct", 1, True), ("spikes", 1, False), ("events", 1, False), ("events", 3, True)],
)
def test_which_inputs_are_graded(coding, levels, graded):
    network = toy_network.network()
    contract = replace(network.contract, input_coding=coding, input_levels=levels)
    assert is_graded(network.with_contract(contract), "input") is graded


def test_a_pool_before_the_weights_hides_the_zeros_and_one_behind_does_not():
    conv = Conv("conv", np.ones((2, 1, 3, 3), np.float32))
    pool = SumPool("pool", (2, 2), (2, 2))
    fired = np.zeros((1, 1, 8, 8), np.int64)
    fired[0, 0, 4, 4] = 1
    for chain, dense, known in (((pool, conv), 72, 72), ((conv, pool), 648, 18)):
        shape = (1, 8, 8)
        for operation in chain:
            shape = shape_after(operation, shape)
        layer = Layer("a", spiking(), shape, (Synapse("input", chain),))
        network = Network("input", (1, 8, 8), (layer,), "a", Contract(1))
        zeros = {"input": fired, "a": np.zeros((1, *shape), np.int64)}
        counts = synaptic_operations(network, zeros)["a"]
        assert (int(counts.mac_dense[0]), int(counts.mac_nz[0])) == (dense, known)


def test_delays_and_recurrent_edges_arrive_late():
    fc = Dense("fc", np.ones((3, 2), np.float32))
    back = Dense("back", np.ones((2, 3), np.float32))
    layers = (
        Layer("a", spiking(), (2,), (Synapse("input", ()), Synapse("b", (back,)))),
        Layer("b", spiking(), (3,), (Synapse("a", (Delay("d0", 1), fc, Delay("d1", 1))),)),
    )
    network = Network("input", (2,), layers, "b", Contract(4))
    fired = {
        "input": np.zeros((4, 2), np.int64),
        "a": np.array([[1, 0], [1, 1], [0, 1], [1, 1]]),
        "b": np.array([[1, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]),
    }
    counts = synaptic_operations(network, fired)
    assert counts["b"].synops.tolist() == [0, 0, 3, 6]
    assert counts["a"].synops.tolist() == [0, 6, 2, 0]
    held = Synapse("b", (back, Delay("d2", 1)))
    later = replace(network, layers=(replace(layers[0], synapses=(held,)), layers[1]))
    assert synaptic_operations(later, fired)["a"].synops.tolist() == [0, 0, 6, 2]
    direct = Synapse("input", (Dense("d", np.eye(2)), Delay("d2", 9)))
    late = replace(network, layers=(replace(layers[0], synapses=(direct,)), layers[1]))
    assert synaptic_operations(late, fired)["a"].mac_dense.tolist() == [0, 0, 0, 0]


def test_a_foreign_trace_is_refused():
    network = toy_network.network()
    fired = simulate(network, toy_network.frame(), 4).fired
    del fired["two"]
    with pytest.raises(RequestError, match="'two'") as caught:
        synaptic_operations(network, fired)
    assert caught.value.code == "E_TRACE"
    fired["two"] = np.zeros((4, 2, 2), np.int64)
    with pytest.raises(RequestError, match=r"\[T, 2, 2, 2\]"):
        synaptic_operations(network, fired)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2)])
def test_axes_joined_between_a_pool_and_a_map_are_counted_as_they_run(axes):
    pool, flatten = SumPool("pool", (2, 2), (2, 2)), Flatten("join", *axes)
    channels = shape_after(flatten, shape_after(pool, (2, 6, 8)))[0]
    conv = Conv1d("conv", np.ones((4, channels, 3), np.float32), None, 1, 1)
    chain = Synapse("input", (pool, flatten, conv))
    one = np.eye(96).reshape(96, 2, 6, 8)
    reached = np.count_nonzero(through(chain, one).reshape(96, -1), axis=1)
    assert fan_out(chain, (2, 6, 8)).tolist() == reached.reshape(2, 6, 8).tolist()
