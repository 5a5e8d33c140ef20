"""Repairs: graphs whose shapes fit only when one thing is read with tolerance.

Each is tried when the graph does not fit as it stands, and taken when it then does; what was done
is noted. None changes a weight, an edge or a neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import dropwhile
from typing import Any

import numpy as np

from ..errors import RequestError
from .graph import RawGraph, fresh
from .graph_reader import Note, from_graph
from .layers import Network
from .node_types import TYPES, Node
from .semantics import Semantics

Repair = Callable[[RawGraph], tuple[RawGraph, str] | None]
"""A graph read with tolerance, and what was taken how; None where there is nothing to do."""


def _cut(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value[0] if value.ndim and len(value) == 1 else value for key, value in params.items()
    }


def _without_batch(graph: RawGraph) -> tuple[RawGraph, str] | None:
    """An Input of [1, ...]: the 1 is a batch, wherever it stands."""
    shapes = [node.params["shape"] for node in graph.nodes.values() if node.type == "Input"]
    if len(shapes) != 1 or len(shapes[0]) < 2 or shapes[0][0] != 1:
        return None

    def strip(node: Node) -> Node:
        params = dict(node.params)
        if "shape" in params:
            shape = params["shape"]
            params["shape"] = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
        elif node.type == "Flatten":
            params.pop("input_type", None)
            for key in ("start_dim", "end_dim"):
                params[key] = params[key] - (params[key] > 0)
        elif TYPES[node.type].neuron or node.type in ("Scale", "Delay"):
            params = _cut(params)
        return Node(node.type, params)

    nodes = {name: strip(node) for name, node in graph.nodes.items()}
    return replace(graph, nodes=nodes), "shapes with a batch of 1 in front, read without it"


def _output_shape(graph: RawGraph) -> tuple[RawGraph, str] | None:
    """An Output whose shape has axes of 1 for batch or time in front of the real one."""
    nodes = dict(graph.nodes)
    found = ""
    for name, node in graph.nodes.items():
        shape = node.params["shape"].tolist() if node.type == "Output" and node.params else []
        rest = list(dropwhile(lambda n: n == 1, shape[:-1])) + shape[-1:]
        if rest != shape:
            nodes[name] = Node("Output", {"shape": np.array(rest, "<i8")})
            found = f"the output's shape {shape}, axes of 1 in front, read as {rest}"
    return (replace(graph, nodes=nodes), found) if found else None


def _pool_strides(graph: RawGraph) -> tuple[RawGraph, str] | None:
    """Pools with stride 1 in a graph whose populations fit strides as large as the windows."""
    names = [
        name
        for name, node in graph.nodes.items()
        if node.type in ("SumPool2d", "AvgPool2d")
        and (node.params["stride"] == 1).all()
        and (node.params["kernel_size"] > 1).any()
    ]
    if not names:
        return None
    nodes = dict(graph.nodes)
    for name in names:
        params = nodes[name].params
        nodes[name] = Node(nodes[name].type, {**params, "stride": params["kernel_size"]})
    text = "', '".join(names)
    return replace(graph, nodes=nodes), (
        f"the pools '{text}' say stride 1, which fits no population behind them; read with the "
        "stride of their windows, which fits all"
    )


REPAIRS: tuple[Repair, ...] = (_output_shape, _without_batch, _pool_strides)


def with_ports(graph: RawGraph) -> RawGraph:
    """A graph without Input or Output gets what is missing, where the place for it is plain.

    Raises RequestError (E_EDGES) where it is not, or where no node says what shape comes in.
    """
    nodes, edges, notes = dict(graph.nodes), graph.edges, list(graph.notes)
    kinds = {node.type for node in nodes.values()}
    fed = {target for _, target in edges}
    feeds = {source for source, _ in edges}
    if "Input" not in kinds:
        name = _only([n for n in nodes if n not in fed], "Input", "are fed by nothing")
        shape = _shape_into(name, nodes[name])
        port = fresh("input", nodes)
        nodes[port] = Node("Input", {"shape": np.array(shape, "<i8")})
        edges = ((port, name), *edges)
        notes.append(f"the graph has no Input; one of shape {list(shape)} is put before '{name}'")
    if "Output" not in kinds:
        name = _only([n for n in graph.nodes if n not in feeds], "Output", "feed nothing")
        port = fresh("output", nodes)
        nodes[port] = Node("Output", {})
        edges = (*edges, (name, port))
        notes.append(f"the graph has no Output; one is put behind '{name}'")
    return replace(graph, nodes=nodes, edges=edges, notes=tuple(notes))


def _only(names: list[str], kind: str, how: str) -> str:
    if len(names) != 1:
        listed = ", ".join(f"'{name}'" for name in names[:8]) or "none"
        raise RequestError(
            "E_EDGES",
            f"the graph has no {kind}, and {len(names)} nodes {how} ({listed}); expected one",
        )
    return names[0]


def _shape_into(name: str, node: Node) -> tuple[int, ...]:
    """What a node must be fed with, as far as its own parameters say."""
    params = node.params
    if node.type in ("Affine", "Linear"):
        return (int(params["weight"].shape[1]),)
    if node.type in ("Conv1d", "Conv2d") and "input_shape" in params:
        channels = params["weight"].shape[1] * int(params["groups"])
        return (channels, *params["input_shape"].tolist())
    shape: tuple[int, ...] = next(iter(params.values())).shape
    if TYPES[node.type].neuron and shape:
        return shape
    raise RequestError(
        "E_SHAPE", f"the graph has no Input, and node '{name}' ({node.type}) does not say its shape"
    )


def interpret(graph: RawGraph, semantics: Semantics, note: Note = lambda _: None) -> Network:
    """`from_graph` with tolerance: as the graph stands, else with the fewest repairs that fit.

    Raises what `from_graph` raises for the graph as it stands.
    """
    graph = with_ports(graph)
    told: list[str] = []
    try:
        network = from_graph(graph, semantics, told.append)
    except RequestError as error:
        if error.code != "E_SHAPE":
            raise
        network = _repaired(graph, semantics, told, error)
    for text in (*graph.notes, *told):
        note(text)
    return network


def _repaired(
    graph: RawGraph, semantics: Semantics, told: list[str], error: RequestError
) -> Network:
    chosen = sorted(range(1, 2 ** len(REPAIRS)), key=lambda n: (n.bit_count(), n))
    for subset in chosen:
        repairs = [repair for n, repair in enumerate(REPAIRS) if subset >> n & 1]
        candidate, texts = graph, list[str]()
        for repair in repairs:
            found = repair(candidate)
            if found is None:
                break
            candidate = found[0]
            texts.append(found[1])
        else:
            told.clear()
            try:
                network = from_graph(candidate, semantics, told.append)
            except RequestError:  # this reading does not fit either; the first error is raised
                continue
            told[:0] = texts
            return network
    raise error
