"""Network to graph and back: names, Sums, orders, decays, and what the hash sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from integer_networks import integer_networks
from random_networks import frames, networks
from small_network import small_network
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract
from snnpipe.network.graph import graph_hash, graph_sha256, to_graph
from snnpipe.network.graph_reader import from_graph
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import IF, LIF, Sum
from snnpipe.network.node_types import compress
from snnpipe.network.node_writing import neuron_node
from snnpipe.network.semantics import Semantics
from snnpipe.network.simulate import simulate
from snnpipe.network.sums import SumRecord, eliminate, restore

CONTRACT = Contract(steps=3)
SEMANTICS = Semantics(CONTRACT)
RNG = np.random.default_rng(3)


def _if(value: float = 1.0) -> IF:
    return IF(np.array(value, np.float32))


def _dense(name: str, out: int, n: int) -> Dense:
    return Dense(name, (RNG.integers(-16, 17, (out, n)) / 16).astype(np.float32))


def _layer(name: str, *sources: str | tuple[str, Any], n: int = 4, neuron: Any = None) -> Layer:
    synapses = tuple(
        Synapse(source) if isinstance(source, str) else Synapse(source[0], (source[1],))
        for source in sources
    )
    return Layer(name, neuron or _if(), (n,), synapses)


def _network(*layers: Layer, n: int = 4) -> Network:
    return Network("input", (n,), layers, layers[-1].name, CONTRACT)


def _residual() -> Network:
    """Sums inside: a join that feeds a map and another join, and a read-out."""
    return _network(
        _layer("a", ("input", _dense("a.w", 4, 4))),
        _layer("b", ("a", _dense("b.w", 4, 4))),
        _layer("join", "a", "b", neuron=Sum()),
        _layer("c", ("join", _dense("c.w", 4, 4))),
        _layer("more", "c", "join", neuron=Sum()),
        _layer("readout", ("more", _dense("fc", 3, 4)), n=3, neuron=Sum()),
    )


def _same_run(one: Network, other: Network, x: np.ndarray | None = None) -> None:
    x = frames(one, 3, 5) if x is None else x
    first, second = (simulate(network, x, one.contract.steps) for network in (one, other))
    assert first.outputs.tobytes() == second.outputs.tobytes()
    for layer in one.layers:
        if layer.name in second.spikes:
            assert (first.spikes[layer.name] == second.spikes[layer.name]).all()


@given(st.one_of(networks(), integer_networks()))
@settings(max_examples=50, derandomize=True, deadline=None)
def test_round_trip_keeps_hash_names_orders_and_every_spike(network: Network) -> None:
    graph = to_graph(network)
    back = from_graph(graph, Semantics(network.contract))
    assert graph_hash(to_graph(back)) == graph_hash(graph) == graph_sha256(network)
    assert [layer.name for layer in back.layers] == [layer.name for layer in network.layers]
    assert (back.output, back.output_port) == (network.output, network.output_port)
    for old, new in zip(network.layers, back.layers, strict=True):
        assert new.shape == old.shape
        assert type(new.neuron) is type(old.neuron)
        names = [(s.source, [op.name for op in s.operations]) for s in old.synapses]
        assert [(s.source, [op.name for op in s.operations]) for s in new.synapses] == names
    _same_run(network, back)


# --- the hash ---


def test_the_hash_sees_each_part() -> None:
    network = small_network()
    conv = network.layers[0].synapses[0].operations[0]
    assert isinstance(conv, Conv)

    def changed(operation: Any, neuron: Any = None) -> str:
        first = replace(
            network.layers[0],
            synapses=(Synapse("input", (operation,)),),
            neuron=neuron or network.layers[0].neuron,
        )
        return graph_sha256(replace(network, layers=(first, *network.layers[1:])))

    nudged = conv.weight.copy()
    nudged[0, 0, 0, 0] = np.nextafter(nudged[0, 0, 0, 0], np.float32(9))
    lif = network.layers[0].neuron
    assert isinstance(lif, LIF)
    hashes = {
        changed(conv),
        changed(replace(conv, weight=nudged)),
        changed(replace(conv, name="conv2")),
        changed(replace(conv, bias=None)),
        changed(conv, replace(lif, threshold=np.array(1.25, np.float32))),
        changed(conv, replace(lif, v_reset=np.array(0.25, np.float32))),
        changed(conv, replace(lif, decay=np.nextafter(lif.decay, np.float32(0)))),
        changed(conv, IF(lif.threshold)),
    }
    assert len(hashes) == 8
    assert changed(conv) == graph_sha256(network)


def test_the_hash_does_not_see_forms_that_mean_the_same() -> None:
    network = small_network()
    first, second, readout = network.layers
    conv = first.synapses[0].operations[0]
    zeros = replace(conv, bias=np.zeros(4, np.float32))
    none = replace(conv, bias=None)
    one, two = (
        graph_sha256(
            replace(
                network,
                layers=(replace(first, synapses=(Synapse("input", (op,)),)), second, readout),
            )
        )
        for op in (zeros, none)
    )
    assert one == two
    full = IF(np.full((4, 2, 2), 0.75, np.float32))
    wide = replace(network, layers=(first, replace(second, neuron=full), readout))
    assert graph_sha256(wide) == graph_sha256(network)
    assert graph_sha256(network.with_contract(replace(CONTRACT, steps=9))) == graph_sha256(network)
    graph = to_graph(network)
    turned = replace(graph, edges=graph.edges[::-1], metadata={"a": "b"})
    assert graph_hash(turned) == graph_hash(graph)
    assert graph_hash(replace(graph, edges=graph.edges[:-1])) != graph_hash(graph)


def test_a_dense_bias_of_zeros_becomes_none() -> None:
    dense = replace(_dense("w", 4, 4), bias=np.zeros(4, np.float32))
    network = _network(_layer("a", ("input", dense)))
    graph = to_graph(network)
    assert graph.nodes["w"].type == "Linear"
    (operation,) = from_graph(graph, SEMANTICS).layers[0].synapses[0].operations
    assert isinstance(operation, Dense)
    assert operation.bias is None


# --- Sums ---


def test_sums_leave_only_edges_and_come_back() -> None:
    network = _residual()
    graph = to_graph(network)
    assert "join" not in graph.nodes
    assert set(graph.edges) == {
        ("input", "a.w"), ("a.w", "a"), ("a", "b.w"), ("b.w", "b"), ("a", "c.w"), ("b", "c.w"),
        ("c.w", "c"), ("c", "fc"), ("a", "fc"), ("b", "fc"), ("fc", "output"),
    }  # fmt: skip
    assert [record.name for record in graph.sums] == ["join", "more", "readout"]
    assert graph.sums[0] == SumRecord("join", ("a", "b"), ("c.w", "more"), (4,))
    back = from_graph(graph, SEMANTICS)
    assert [layer.name for layer in back.layers] == ["a", "b", "join", "c", "more", "readout"]
    _same_run(network, back)


def test_without_records_sums_get_names_of_their_own() -> None:
    network = _residual()
    bare = replace(to_graph(network), sums=())
    back = from_graph(bare, SEMANTICS)
    assert [layer.name for layer in back.layers] == ["a", "b", "c.w.in", "c", "fc.in", "readout"]
    assert [s.source for s in back.layer("fc.in").synapses] == ["c", "a", "b"]
    assert graph_sha256(back) == graph_sha256(network)
    _same_run(network, back)


def test_a_linear_node_that_feeds_several_gets_a_sum_behind_it() -> None:
    network = _network(
        _layer("drive", ("input", _dense("w", 4, 4)), neuron=Sum()),
        _layer("a", "drive"),
        _layer("b", "drive", "a"),
    )
    bare = replace(to_graph(network), sums=())
    back = from_graph(bare, SEMANTICS)
    assert [layer.name for layer in back.layers] == ["w.out", "a", "b"]
    assert graph_sha256(back) == graph_sha256(network)
    _same_run(network, back)


def test_a_taken_name_is_not_taken_again() -> None:
    network = _network(
        _layer("readout", ("input", _dense("w", 4, 4))),
        _layer("end", ("readout", _dense("fc", 2, 4)), n=2, neuron=Sum()),
    )
    back = from_graph(replace(to_graph(network), sums=()), SEMANTICS)
    assert [layer.name for layer in back.layers] == ["readout", "readout_2"]


def test_an_output_of_two_populations_is_their_sum() -> None:
    network = _network(
        _layer("a", ("input", _dense("a.w", 4, 4))),
        _layer("b", ("a", _dense("b.w", 4, 4))),
        _layer("both", "a", "b", neuron=Sum()),
    )
    back = from_graph(replace(to_graph(network), sums=()), SEMANTICS)
    assert back.output == "readout"
    _same_run(network, back)


def test_an_edge_that_would_be_there_twice_is_refused() -> None:
    sum_and_source = _network(
        _layer("a", ("input", _dense("a.w", 4, 4))),
        _layer("b", ("a", _dense("b.w", 4, 4))),
        _layer("join", "a", "b", neuron=Sum()),
        _layer("c", "join", "a"),
    )
    with pytest.raises(RequestError, match=r"'join' is no node .*'c' would be fed twice by 'a'"):
        to_graph(sum_and_source)
    twice = _network(_layer("a", ("input", _dense("a.w", 4, 4))), _layer("b", "a", "a"))
    with pytest.raises(RequestError, match="'b' is fed twice by 'a'"):
        to_graph(twice)


@st.composite
def _graphs(draw: Any) -> tuple[dict[str, list[str]], list[str]]:
    """Random preds, loops among them, each node but the first fed, and which nodes are Sums."""
    names = [f"n{i}" for i in range(draw(st.integers(2, 9)))]
    preds: dict[str, list[str]] = {names[0]: []}
    for name in names[1:]:
        preds[name] = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    return preds, [name for name in draw(st.permutations(names[1:])) if draw(st.booleans())]


@given(_graphs())
@settings(max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
def test_restore_undoes_eliminate(drawn: tuple[dict[str, list[str]], list[str]]) -> None:
    preds, sums = drawn
    try:
        left, records = eliminate(preds, dict.fromkeys(sums, (1,)))
    except RequestError as error:
        assume(error.code not in ("E_EDGES", "E_CYCLE"))  # an edge twice, a Sum that feeds itself
        raise
    assert not set(sums) & set(left)
    assert not any(set(sums) & set(sources) for sources in left.values())
    assert restore(left, records) == preds


def test_sums_that_multiply_edges_are_refused() -> None:
    many = [f"s{n}" for n in range(400)]
    preds = {name: [] for name in many} | {"sum": many} | {f"t{n}": ["sum"] for n in range(400)}
    with pytest.raises(RequestError, match="160000 edges") as caught:
        eliminate(preds, {"sum": (1,)})
    assert caught.value.code == "E_LIMIT"


@pytest.mark.parametrize(
    "record",
    [
        SumRecord("a", ("a.w",), ("output",), (4,)),
        SumRecord("s", ("b.w",), ("output",), (4,)),
        SumRecord("s", (), ("output",), (4,)),
        SumRecord("s", ("a",), ("nobody",), (4,)),
        SumRecord("s", ("a",), ("output",), (5,)),
        SumRecord("s", ("a", "a"), ("output",), (4,)),
    ],
)
def test_records_that_do_not_fit_are_refused(record: SumRecord) -> None:
    graph = to_graph(_network(_layer("a", ("input", _dense("a.w", 4, 4)))))
    with pytest.raises(RequestError) as caught:
        from_graph(replace(graph, sums=(record,)), SEMANTICS)
    assert caught.value.code == "E_CONTRACT"


# --- orders ---


@pytest.mark.parametrize("names", [["10", "9", "2"], ["z", "a", "m"], ["l1", "l10", "l2"]])
def test_a_chain_keeps_its_order_whatever_its_names(names: Sequence[str]) -> None:
    layers, source = [], "input"
    for name in names:
        layers.append(_layer(name, (source, _dense(f"w{name}", 4, 4))))
        source = name
    graph = to_graph(_network(*layers))
    shuffled = dict(sorted(graph.nodes.items(), key=lambda item: item[0], reverse=True))
    back = from_graph(replace(graph, nodes=shuffled), SEMANTICS)
    assert [layer.name for layer in back.layers] == list(names)


def test_layers_of_one_depth_come_in_the_order_of_their_numbers() -> None:
    layers = [_layer(f"l{i}", ("input", _dense(f"w{i}", 4, 4))) for i in (10, 9, 2)]
    layers.append(_layer("end", "l10", "l9", "l2", neuron=Sum()))
    back = from_graph(to_graph(_network(*layers)), SEMANTICS)
    assert [layer.name for layer in back.layers] == ["l2", "l9", "l10", "end"]
    assert [s.source for s in back.layer("end").synapses] == ["l10", "l9", "l2"]


# --- parameters ---


@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(2.0**-23, 1 - 2.0**-24, width=32)),
        min_size=1, max_size=40,
    )
)  # fmt: skip
@settings(max_examples=50, derandomize=True)
def test_decays_come_back_in_every_bit(values: list[float]) -> None:
    decay = np.array(values, np.float32)
    shape = (len(values),)
    network = Network(
        "input", shape,
        (Layer("a", LIF(decay, np.array(1.0, np.float32)), shape, (Synapse("input"),)),),
        "a", replace(CONTRACT, dt=3e-4),
    )  # fmt: skip
    neuron = from_graph(to_graph(network), Semantics(network.contract)).layers[0].neuron
    assert isinstance(neuron, LIF)
    assert np.broadcast_to(neuron.decay, shape).tobytes() == decay.tobytes()


def test_a_decay_that_tau_cannot_hold_is_refused() -> None:
    lif = LIF(np.array(2.0**-60, np.float32), np.array(1.0, np.float32))
    with pytest.raises(RequestError, match=r"layer .x. has the decay 8.67361738e-19"):
        neuron_node("x", lif, (3,), 1e-4)


def test_neurons_are_written_in_seconds_at_full_shape() -> None:
    lif = LIF(np.array([0.75, 0.5], np.float32).reshape(2, 1, 1), np.array(2.0, np.float32))
    node = neuron_node("x", lif, (2, 1, 3), 1e-3)
    assert {name: values.shape for name, values in node.params.items()} == dict.fromkeys(
        ("tau", "r", "v_leak", "v_threshold", "v_reset"), (2, 1, 3)
    )
    assert node.params["tau"].dtype == node.params["r"].dtype == np.float64
    assert node.params["tau"][:, 0, 0].tolist() == [1e-3 / 0.25, 1e-3 / 0.5]
    assert node.params["r"][:, 0, 0].tolist() == [4.0, 2.0]
    plain = neuron_node("x", _if(), (3,), 1e-3)
    assert plain.params["r"].tolist() == [1 / 1e-3] * 3


@pytest.mark.parametrize("shape", [(), (3, 1, 1), (3, 2, 2)])
def test_parameters_come_back_as_small_as_they_are(shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape).astype(np.float32)
    found = compress(np.broadcast_to(values, (3, 2, 2)))
    assert found.shape == shape
    assert found.tobytes() == values.tobytes()


# --- what a graph cannot hold ---


def test_what_nir_cannot_hold_is_named() -> None:
    good = _layer("a", ("input", _dense("a.w", 4, 4)))
    rows: list[tuple[Network, str, str]] = [
        (_network(good, _layer("a", "input")), "E_NAME", "'a'"),
        (_network(replace(good, name="a/b")), "E_NAME", "'a/b'"),
        (_network(replace(good, name=".")), "E_NAME", "'.'"),
        (_network(replace(good, synapses=()), good), "E_NAME", "'a'"),
        (_network(_layer("b"), good), "E_EDGES", "'b' is fed by nothing"),
        (_network(_layer("b", "input"), good), "E_EDGES", "'b' feeds nothing"),
        (_network(_layer("b", "b", neuron=Sum()), good), "E_CYCLE", "'b' feeds itself"),
    ]
    for network, code, text in rows:
        with pytest.raises(RequestError) as caught:
            to_graph(network)
        assert caught.value.code == code
        assert text in caught.value.message


def test_branches_of_different_shape_do_not_meet() -> None:
    network = _network(
        _layer("a", ("input", _dense("a.w", 4, 4))),
        _layer("b", ("a", _dense("b.w", 4, 4))),
        _layer("end", "a", ("b", Flatten("f")), neuron=Sum()),
    )
    graph = to_graph(network)
    narrow = to_graph(_network(_layer("b", ("input", _dense("b.w", 3, 4)), n=3)))
    nodes = {**graph.nodes, "b.w": narrow.nodes["b.w"], "b": narrow.nodes["b"]}
    nodes["f"] = replace(nodes["f"], params={k: v for k, v in nodes["f"].params.items()
                                             if k != "input_type"})  # fmt: skip
    with pytest.raises(RequestError, match="'end' is fed with shape") as caught:
        from_graph(replace(graph, nodes=nodes), SEMANTICS)
    assert caught.value.code == "E_SHAPE"
