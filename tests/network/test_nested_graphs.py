"""Graphs inside graphs: laid flat, equal to the flat form, or refused with the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nir_edits import refused
from nir_graphs import Node, chain, feed_forward, graph, lif, linear, port, write
from snnpipe.errors import RequestError
from snnpipe.network.graph import network_sha256
from snnpipe.network.graph_file import read_graph
from snnpipe.network.hdf5 import Limits
from snnpipe.network.layers import Network
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate

FLAT = graph(
    {
        "input": port("Input", 4),
        "w": linear(5, 4, 1),
        "lif": lif(5),
        "back": linear(5, 5, 2),
        "v": linear(3, 5, 3),
        "out": lif(3),
        "output": port("Output", 3),
    },
    [*chain("input w lif v out output"), *chain("lif back lif")],
)


def _recurrent(neuron: str = "lif", called: str = "lif", **more: Node) -> Node:
    """The recurrent layer of `FLAT`; its edges call its neurons ``called``."""
    nodes = {
        "input": port("Input", 5),
        neuron: lif(5),
        "back": linear(5, 5, 2),
        "output": port("Output", 5),
        **more,
    }
    return graph(nodes, [*chain(f"input {called} output"), *chain(f"{called} back {called}")])


def _around(layer: Node, name: str = "rec", **more: Node) -> Node:
    """A graph with ``layer`` in the place of the recurrent layer of `FLAT`."""
    nodes = {key: FLAT["nodes"][key] for key in ("input", "w", "v", "out", "output")}
    return graph({**nodes, name: layer, **more}, chain(f"input w {name} v out output"))


def _twice(layer: Node) -> Node:
    """A graph that holds nothing but another one."""
    nodes = {"in": port("Input", 5), "inner": layer, "end": port("Output", 5)}
    return graph(nodes, chain("in inner end"))


def _read(path: Path, node: Node) -> Network:
    return read_network(write(path, node), "nir-strict")


def _run(network: Network) -> bytes:
    x = np.random.default_rng(0).integers(0, 5, (30, 3, 4)).astype(np.float32) / 4
    trace = simulate(network, x, 30)
    assert trace.fired[network.output].any()
    return trace.outputs.tobytes()


@pytest.mark.parametrize(
    ("layer", "name"),
    [(_recurrent(), "rec.lif"), (_twice(_recurrent()), "rec.inner.lif"),
     (_twice(_twice(_recurrent())), "rec.inner.inner.lif")],
)  # fmt: skip
def test_nested_graphs_are_the_flat_one(layer: Node, name: str, tmp_path: Path) -> None:
    flat, nested = (_read(tmp_path / "x.nir", node) for node in (FLAT, _around(layer)))
    assert [layer.name for layer in nested.layers] == [name, "out"]
    assert [op.name for op in nested.layers[0].synapses[1].operations] == [name[:-3] + "back"]
    assert network_sha256(nested) == network_sha256(flat)
    assert _run(nested) == _run(flat)
    assert read_graph(tmp_path / "x.nir").notes == ()


def test_edges_keep_their_order_through_ports(tmp_path: Path) -> None:
    """What enters a port is added in its place, between what was there before and after it."""
    inner = graph(
        {"i": port("Input", 4), "sum": lif(4), "a": linear(4, 4, 1), "o": port("Output", 4)},
        [("a", "sum"), ("i", "sum"), ("sum", "a"), ("sum", "o")],
    )
    nodes = {"input": port("Input", 4), "p": lif(4), "q": lif(4), "g": inner}
    edges = [*chain("input p g output"), *chain("input q g")]
    network = _read(tmp_path / "x.nir", graph({**nodes, "output": port("Output", 4)}, edges))
    assert [s.source for s in network.layer("g.sum").synapses] == ["g.sum", "p", "q"]


def test_a_graph_may_only_pass_on(tmp_path: Path) -> None:
    empty = graph({"i": port("Input", 4), "o": port("Output", 4)}, chain("i o"))
    node = feed_forward(pipe=empty)
    node["edges"] = chain("input w pipe lif v out output")
    network = _read(tmp_path / "x.nir", node)
    assert network_sha256(network) == network_sha256(_read(tmp_path / "y.nir", feed_forward()))


def test_names_that_meet_are_kept_apart(tmp_path: Path) -> None:
    other = _around(_recurrent(), **{"rec.lif": lif(5)})
    other["edges"] = chain("input w rec.lif rec v out output")
    graph_file = write(tmp_path / "x.nir", other)
    network = read_network(graph_file, "nir-strict")
    assert [layer.name for layer in network.layers] == ["rec.lif", "rec.lif_2", "out"]
    assert read_graph(graph_file).notes == ("node 'rec/lif' is called 'rec.lif_2' here",)
    assert [s.source for s in network.layers[1].synapses] == ["rec.lif", "rec.lif_2"]


# --- inner edges that call the neurons by a name that no node has ---


def test_a_misnamed_inner_neuron_is_found_and_noted(tmp_path: Path) -> None:
    nested = _around(_recurrent("lif1", "lif"))
    network = _read(tmp_path / "x.nir", nested)
    assert network_sha256(network) == network_sha256(_read(tmp_path / "y.nir", FLAT))
    (note,) = read_graph(tmp_path / "x.nir").notes
    assert note == "/node/nodes/rec/edges says 'lif' for the only neurons, 'lif1'; taken so"


def test_which_of_two_is_meant_is_not_guessed(tmp_path: Path) -> None:
    nested = _around(_recurrent("lif1", "lif", lif2=lif(5)))
    assert "'lif' is no node" in refused(write(tmp_path / "x.nir", nested), "E_EDGES")


def test_two_wrong_names_are_refused(tmp_path: Path) -> None:
    layer = _recurrent("lif1", "lif")
    layer["edges"] = [("input", "lif"), ("lif2", "output")]
    assert "is no node" in refused(write(tmp_path / "x.nir", _around(layer)), "E_EDGES")


def test_wrong_names_outside_are_refused(tmp_path: Path) -> None:
    node = feed_forward()
    node["edges"] = chain("input w neuron v out output")
    assert "'neuron' is no node" in refused(write(tmp_path / "x.nir", node), "E_EDGES")


# --- refused ---


def _without(layer: Node, *names: str) -> Node:
    nodes = {name: node for name, node in layer["nodes"].items() if name not in names}
    return graph(nodes, [e for e in layer["edges"] if not set(e) & set(names)])


def _more(layer: Node, *pairs: tuple[str, str]) -> Node:
    return graph(layer["nodes"], [*layer["edges"], *pairs])


_LOOP = graph({"i": port("Input", 5), "o": port("Output", 5)}, chain("i o"))

REFUSED: dict[str, tuple[Node, str, str]] = {
    "no input": (_around(_without(_recurrent(), "input")), "E_UNSUPPORTED", "/node/nodes/rec has "
                 "0 Input nodes"),
    "no output": (_around(_without(_recurrent(), "output")), "E_UNSUPPORTED", "0 Output nodes"),
    "two inputs": (_around(_more(_recurrent(input2=port("Input", 5)), ("input2", "lif"))),
                   "E_UNSUPPORTED", "2 Input nodes"),
    "two outputs": (_around(_more(_recurrent(out=port("Output", 5)), ("lif", "out"))),
                    "E_UNSUPPORTED", "2 Output nodes"),
    "into its own input": (_around(_more(_recurrent(), ("back", "input"))), "E_EDGES",
                           "/node/nodes/rec/edges"),
    "out of its own output": (_around(_more(_recurrent(), ("output", "back"))), "E_EDGES",
                              "/node/nodes/rec/edges"),
    "edge to another level": (_more(_around(_recurrent()), ("w", "lif")), "E_EDGES",
                              "'lif' is no node"),
    "edge to another level by path": (_more(_around(_recurrent()), ("w", "rec/lif")), "E_EDGES",
                                      "'rec/lif' is no node"),
    "edge to another level by its later name": (
        _more(_around(_recurrent()), ("w", "rec.lif")), "E_EDGES", "'rec.lif' is no node"
    ),
    "edge from inside to outside": (_around(_more(_recurrent(), ("lif", "out"))), "E_EDGES",
                                    "/node/nodes/rec/edges"),
    "fed by nothing": (_more(_without(_around(_LOOP), "w"), ("input", "v")), "E_EDGES",
                       "'rec/i' is fed by nothing"),
    "feeds nothing": (_more(_without(_around(_LOOP), "v"), ("w", "out")), "E_EDGES",
                      "'rec/o' is fed by nothing or feeds nothing"),
    "an edge twice through a port": (
        graph({**_around(_recurrent())["nodes"], "mid": _LOOP},
              [*chain("input w rec v out output"), *chain("w mid rec")]),
        "E_EDGES", "'rec/input' would be fed twice by 'w'"),
    "ports in a circle": (_more(_around(_LOOP), ("rec", "rec")), "E_CYCLE", "feeds itself"),
    "an edge twice inside": (_around(_more(_recurrent(), ("input", "lif"))), "E_EDGES",
                             "'input' -> 'lif' twice"),
    "no edges inside": (_around({**_recurrent(), "edges": np.zeros((0, 2))}), "E_EDGES",
                        "/node/nodes/rec/edges holds no edges"),
    "no nodes inside": (_around({**_recurrent(), "nodes": {}}), "E_PARAM", "/node/nodes/rec/nodes"),
    "a wrong value inside": (_around(_recurrent(bad={**lif(5), "tau": np.zeros(5)})), "E_VALUE",
                             "/node/nodes/rec/nodes/bad/tau"),
    "an unknown type inside": (_around(_recurrent(bad={"type": "LIFF"})), "E_TYPE",
                               "/node/nodes/rec/nodes/bad/type"),
    "metadata inside are data": (_around({**_recurrent(), "metadata": np.zeros(3)}), "E_PARAM",
                                 "/node/nodes/rec/metadata"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_what_cannot_be_laid_flat_is_refused(row: str, tmp_path: Path) -> None:
    node, code, text = REFUSED[row]
    assert text in refused(write(tmp_path / "x.nir", node), code)


# --- hostile ---


@pytest.mark.slow
def test_levels_are_counted_and_cost_no_recursion(tmp_path: Path) -> None:
    layer = _recurrent()
    for _ in range(1500):
        layer = _twice(layer)
    path = write(tmp_path / "x.nir", _around(layer))  # more than 3,000 groups deep
    assert "groups deep" in refused(path, "E_LIMIT")
    assert len(read_graph(path, Limits(depth=4000)).nodes) == len(FLAT["nodes"])


@pytest.mark.parametrize("link", ["hard", "soft"])
def test_a_graph_that_holds_itself_is_refused(link: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _around(_twice(_recurrent())))
    with h5py.File(path, "a") as file:
        outer = file["node/nodes/rec"]
        del outer["nodes/inner"]
        outer["nodes/inner"] = outer if link == "hard" else h5py.SoftLink("/node/nodes/rec")
    assert "/node/nodes/rec/nodes/inner" in refused(path, "E_LINK")


def test_a_graph_shared_by_two_places_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _around(_recurrent()))
    with h5py.File(path, "a") as file:
        file["node/nodes/again"] = file["node/nodes/rec"]
    refused(path, "E_LINK")


def test_edges_that_multiply_are_refused_early(tmp_path: Path) -> None:
    """1,000 nodes before and behind a graph that passes on: a million edges out of 2,000."""
    nodes: dict[str, Any] = {"pipe": _LOOP, "input": port("Input", 5), "output": port("Output", 5)}
    edges = []
    for n in range(1000):
        nodes |= {f"a{n}": {"type": "Scale", "scale": np.ones(())}}
        nodes |= {f"b{n}": {"type": "Scale", "scale": np.ones(())}}
        edges += [("input", f"a{n}"), (f"a{n}", "pipe"), ("pipe", f"b{n}"), (f"b{n}", "output")]
    with pytest.raises(RequestError, match="edges") as caught:
        read_graph(write(tmp_path / "x.nir", graph(nodes, edges)))
    assert caught.value.code == "E_LIMIT"
