"""Loops: which edges are late, in one fixed way; which loops are refused; what runs together."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nir_edits import refused
from nir_graphs import chain, graph, lif, linear, port, write
from random_networks import networks
from snnpipe.errors import RequestError
from snnpipe.network.check import check
from snnpipe.network.contract import Contract
from snnpipe.network.graph import RawGraph, network_sha256, same_network, to_graph
from snnpipe.network.graph_reader import from_graph
from snnpipe.network.layers import Delay, Dense, Layer, Network, Synapse
from snnpipe.network.loops import back_edges, components, ordered
from snnpipe.network.neurons import IF, LIF, Neuron, Sum, Threshold
from snnpipe.network.nir_file import read_network, write_network
from snnpipe.network.semantics import Semantics
from snnpipe.network.simulate import simulate

CONTRACT = Contract(steps=6)
SEMANTICS = Semantics(CONTRACT)


def _one(value: float) -> np.ndarray:
    return np.array(value, np.float32)


SPIKES = LIF(_one(0.75), _one(1.0))
PACEMAKER = LIF(_one(0.75), _one(1.0), leak=_one(0.5))


def _dense(name: str) -> Dense:
    rng = np.random.default_rng(sum(map(ord, name)))
    return Dense(name, (rng.integers(-8, 17, (4, 4)) / 16).astype(np.float32))


def _layer(name: str, *sources: str, neuron: Neuron = SPIKES, **direct: Any) -> Layer:
    """A layer fed through a map by each source; ``direct`` ones through the given operations."""
    chains = {source: (_dense(f"{source}-{name}"),) for source in sources} | direct
    return Layer(name, neuron, (4,), tuple(Synapse(s, ops) for s, ops in chains.items()))


def _network(*layers: Layer, output: str = "") -> Network:
    return Network("input", (4,), layers, output or layers[-1].name, CONTRACT)


def _late(network: Network) -> set[tuple[str, str]]:
    return {
        (synapse.source, layer.name)
        for layer in network.layers
        for synapse in layer.synapses
        if network.late(layer, synapse)
    }


# --- the choice ---


@pytest.mark.parametrize(
    ("edges", "late"),
    [
        ("i-a a-b b-c", set()),
        ("i-a a-a", {"a-a"}),
        ("i-a a-b b-a", {"b-a"}),
        ("i-a a-b b-c c-a c-b", {"c-a", "c-b"}),
        ("i-b i-a a-b b-a", {"b-a"}),  # by name: a is entered first
        ("i-z z-y y-z i-y", {"z-y"}),  # y is entered first, though listed last
        ("i-a a-b b-c c-b i-c", {"c-b"}),
        ("i-a a-c c-b b-a b-c", {"b-a", "b-c"}),
        ("i-10 i-9 9-10 10-9", {"9-10"}),  # as texts: "10" comes before "9"
        ("i-a x-y y-x", set()),  # never reached
    ],
)
def test_edges_that_close_a_loop_are_late(edges: str, late: set[str]) -> None:
    pairs = [tuple(edge.split("-")) for edge in edges.split()]
    for order in (pairs, pairs[::-1], [*pairs[1:], pairs[0]]):
        assert {"-".join(edge) for edge in back_edges(order, "i")} == late


@st.composite
def _loops(draw: Any) -> list[tuple[str, str]]:
    """Edges of a graph in which every layer is reached from the input."""
    names = [f"n{i}" for i in range(draw(st.integers(1, 6)))]
    edges = {(draw(st.sampled_from(["input", *names[:n]])), name) for n, name in enumerate(names)}
    ends = st.tuples(st.sampled_from(names), st.sampled_from(names))
    return sorted(edges | draw(st.sets(ends, max_size=8)))


@given(_loops(), st.randoms(use_true_random=False))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_the_choice_depends_on_the_graph_alone(
    edges: list[tuple[str, str]], rng: random.Random
) -> None:
    """Nodes and edges in any order give one network, and its loops are closed by late edges."""
    names = sorted({end for edge in edges for end in edge} - {"input"})
    used = {source for source, _ in edges}
    pairs = [(n, f"{n}-{m}") for n, m in edges] + [(f"{n}-{m}", m) for n, m in edges]
    pairs += [(n, "output") for n in names if n not in used] or [(names[-1], "output")]
    full = {"input": port("Input", 4), "output": port("Output", 4)}
    full |= {name: lif(4) for name in names} | {f"{n}-{m}": linear(4, 4) for n, m in edges}
    found = []
    for _ in range(3):
        rng.shuffle(pairs)
        order = rng.sample(sorted(full), len(full))
        found.append(_from_plain({name: full[name] for name in order}, pairs))
    first = found[0]
    check(first)
    assert {network_sha256(network) for network in found} == {network_sha256(first)}
    assert all([n.name for n in network.layers] == [n.name for n in first.layers]
               for network in found)  # fmt: skip
    assert _late(first) == back_edges(edges, "input")
    ordered({n: [s for s, m in set(edges) - _late(first) if m == n] for n in ["input", *names]})


def _from_plain(nodes: dict[str, Any], pairs: list[tuple[str, str]]) -> Network:
    from snnpipe.network.node_types import TYPES, Node

    built = {}
    for name, content in nodes.items():
        values = {key: value for key, value in content.items() if key != "type"}
        row = TYPES[content["type"]]
        built[name] = Node(content["type"], row.settle({k: row.fields[k](v) for k, v in
                                                        values.items()}))  # fmt: skip
    return from_graph(RawGraph(built, tuple(pairs)), SEMANTICS)


# --- what is kept with the network ---


def _ring(order: tuple[str, ...]) -> Network:
    """a, b and c in a ring, each fed by the input, in this order of a step."""
    before = {"a": "c", "b": "a", "c": "b"}
    return _network(*(_layer(name, "input", before[name]) for name in order), output="a")


@pytest.mark.parametrize("order", ["abc", "bca", "cab"])
def test_a_choice_of_another_kind_is_kept_by_the_contract(order: str, tmp_path: Path) -> None:
    network = _ring(tuple(order))
    write_network(network, tmp_path / "x.nir")
    back = read_network(tmp_path / "x.nir")
    assert _late(back) == _late(network) == {(order[-1], order[0])}
    assert [layer.name for layer in back.layers] == list(order)
    assert same_network(back, network)


def test_other_choices_are_other_networks() -> None:
    hashes = {network_sha256(_ring(order)) for order in (("a", "b", "c"), ("b", "c", "a"))}
    assert len(hashes) == 2
    x = np.random.default_rng(0).random((6, 2, 4)).astype(np.float32)
    runs = {simulate(_ring(tuple(o)), x, 6).fired["b"].tobytes() for o in ("abc", "bca", "cab")}
    assert len(runs) > 1


def test_a_layer_of_late_values_only_keeps_its_place(tmp_path: Path) -> None:
    network = _network(_layer("a", "b"), _layer("b", "input", "a"))
    check(network)
    write_network(network, tmp_path / "x.nir")
    back = read_network(tmp_path / "x.nir")
    assert _late(back) == {("b", "a")}
    assert [layer.name for layer in back.layers] == ["a", "b"]
    assert network_sha256(back) == network_sha256(network)


def test_a_sum_of_late_values_only_keeps_its_place(tmp_path: Path) -> None:
    network = _network(_layer("a", "b", neuron=Sum()), _layer("b", "input", "a"))
    write_network(network, tmp_path / "x.nir")
    back = read_network(tmp_path / "x.nir")
    assert isinstance(back.layer("a").neuron, Sum)
    assert network_sha256(back) == network_sha256(network)


def test_a_pacemaker_needs_no_input(tmp_path: Path) -> None:
    network = _network(_layer("a", "a", neuron=PACEMAKER), _layer("b", "input", "a"))
    write_network(network, tmp_path / "x.nir")
    back = read_network(tmp_path / "x.nir")
    assert network_sha256(back) == network_sha256(network)
    trace = simulate(back, np.zeros((1, 4), np.float32), 30)
    assert trace.fired["a"].any()


def test_sums_stand_in_loops(tmp_path: Path) -> None:
    """A Sum that feeds itself through a delay, and one between two layers of a loop."""
    delay = {"s": (Delay("s.delay", 2),), "input": ()}
    network = _network(
        _layer("s", neuron=Sum(), **delay),
        _layer("a", "s", "join"),
        _layer("join", neuron=Sum(), a=(), s=()),
        _layer("end", "join"),
    )
    check(network)
    write_network(network, tmp_path / "x.nir")
    back = read_network(tmp_path / "x.nir")
    assert same_network(back, network)
    assert network_sha256(back) == network_sha256(network)
    assert [layer.name for layer in back.layers] == ["s", "a", "join", "end"]


@pytest.mark.parametrize(
    "late",
    [
        [],
        [("b", "a")],  # no edge
        [("a", "b")],  # leaves the loop closed
        [("a", "a"), ("a", "b")],  # closes no loop
        [("a", "a"), ("b-c", "c")],
        [("a", "a"), ("output", "a")],
        [("a", "a"), ("nobody", "a")],
    ],
)
def test_back_edges_that_do_not_fit_are_refused(late: list[tuple[str, str]]) -> None:
    network = _network(_layer("a", "input", "a"), _layer("b", "input", "a"), _layer("c", "b"))
    whole = to_graph(network)
    assert whole.back_edges == (("a", "a"),)
    with pytest.raises(RequestError) as caught:
        from_graph(replace(whole, back_edges=tuple(late)), SEMANTICS)
    assert caught.value.code == "E_CONTRACT"


def test_a_back_edge_that_only_turns_the_order_round_is_refused() -> None:
    whole = to_graph(_network(_layer("z", "input"), _layer("a", "input", "z")))
    turned = from_graph(replace(whole, back_edges=(("z", "a"),)), SEMANTICS)
    with pytest.raises(RequestError, match=r"expected 'z' first") as caught:
        check(turned)
    assert caught.value.code == "E_CYCLE"


# --- refused ---


@pytest.mark.parametrize("names", ["".join(order) for order in permutations("xyz")])
def test_a_loop_of_linear_nodes_is_named_node_by_node(names: str, tmp_path: Path) -> None:
    one, two, three = names
    nodes = {"input": port("Input", 4), "lif": lif(4), "output": port("Output", 4)}
    nodes |= {name: linear(4, 4) for name in names}
    pairs = [*chain(f"input {one} {two} lif output"), (two, three), (three, one)]
    message = refused(write(tmp_path / "x.nir", graph(nodes, pairs)), "E_CYCLE")
    assert "nothing has a state" in message


def test_a_loop_of_one_linear_node_is_refused(tmp_path: Path) -> None:
    nodes = {"input": port("Input", 4), "w": linear(4, 4), "lif": lif(4)}
    pairs = [*chain("input w lif output"), ("w", "w")]
    path = write(tmp_path / "x.nir", graph({**nodes, "output": port("Output", 4)}, pairs))
    assert "nothing has a state" in refused(path, "E_CYCLE")


def test_thresholds_alone_close_no_loop(tmp_path: Path) -> None:
    def spikes() -> dict[str, Any]:
        return {"type": "Threshold", "threshold": np.ones(4)}

    nodes = {"input": port("Input", 4), "output": port("Output", 4), "a": spikes(), "b": spikes()}
    pairs = [*chain("input a b output"), ("b", "a")]
    message = refused(write(tmp_path / "x.nir", graph(nodes, pairs)), "E_CYCLE")
    assert "nothing has a state" in message
    nodes["a"] = lif(4)
    network = read_network(write(tmp_path / "y.nir", graph(nodes, pairs)), "nir-strict")
    assert _late(network) == {("b", "a")}
    nodes |= {"a": spikes(), "d": {"type": "Delay", "delay": np.full(4, 2e-4)}}
    pairs = [*chain("input a b output"), *chain("b d a")]
    network = read_network(write(tmp_path / "z.nir", graph(nodes, pairs)), "nir-strict")
    assert _late(network) == {("b", "a")}


def test_a_loop_that_nothing_leads_into_is_refused(tmp_path: Path) -> None:
    nodes = {"input": port("Input", 4), "w": linear(4, 4), "lif": lif(4), "x": lif(4), "y": lif(4)}
    nodes["output"] = port("Output", 4)
    pairs = [*chain("input w lif output"), *chain("x y x"), ("y", "lif")]
    message = refused(write(tmp_path / "x.nir", graph(nodes, pairs)), "E_CYCLE")
    assert "'y' -> 'x' -> 'y' form a loop that no path from 'input' leads into" in message


def test_check_names_what_a_late_edge_cannot_be() -> None:
    backwards = _network(_layer("b", "input", "a"), _layer("a", "input"), output="b")
    with pytest.raises(RequestError, match=r"'b' stands before 'a'.*expected 'a' first"):
        check(backwards)
    fires = Threshold(_one(1.0))
    empty = _network(_layer("a", "input", "b", neuron=fires), _layer("b", "a", neuron=fires))
    with pytest.raises(RequestError, match="'a' -> 'b' -> 'a', where nothing has a state"):
        check(empty)
    check(_network(_layer("a", "input", "b", neuron=IF(_one(1.0))), _layer("b", "a", neuron=fires)))


def test_a_chain_of_ten_thousand_layers_is_checked_in_little_memory() -> None:
    layers = [_layer("n0", "input")]
    for n in range(1, 10_000):
        layers.append(Layer(f"n{n}", SPIKES, (4,), (Synapse(f"n{n - 1}"),)))
    network = _network(replace(layers[0], synapses=(*layers[0].synapses, Synapse("n9999"))),
                       *layers[1:])  # fmt: skip
    check(network)
    assert [len(group) for group in components(network)] == [10_000]


# --- what runs together ---


def test_layers_of_touching_loops_run_together() -> None:
    network = _network(
        _layer("a", "input", "b"),
        _layer("b", "a", "c"),
        _layer("c", "b"),
        _layer("side", "a"),
        _layer("d", "c", "d"),
        _layer("end", "side", "d"),
    )
    groups = [[layer.name for layer in group] for group in components(network)]
    assert sorted(map(tuple, groups)) == [("a", "b", "c"), ("d",), ("end",), ("side",)]
    assert groups[0] == ["a", "b", "c"]
    assert groups[-1] == ["end"]


@given(networks())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_groups_come_behind_what_feeds_them(network: Network) -> None:
    groups = components(network)
    place = {layer.name: n for n, group in enumerate(groups) for layer in group}
    assert sorted(place) == sorted(network.by_name)
    for layer in network.layers:
        for synapse in layer.synapses:
            if synapse.source == network.input:
                continue
            assert place[synapse.source] <= place[layer.name]
            if network.late(layer, synapse):
                assert place[synapse.source] == place[layer.name]
