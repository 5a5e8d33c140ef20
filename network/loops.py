"""Loops: which synapses are recurrent, and which loops could never be computed.

A step needs an order of the layers. Wherever layers feed each other in a circle, one synapse must
carry the values of the last step; which one decides every spike, so it is chosen in one fixed way
and kept with the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import RequestError
from .layers import Delay, Layer, Network
from .neurons import Stateful

Edge = tuple[str, str]
"""From a source to the layer it feeds."""


def back_edges(edges: Iterable[Edge], first: str) -> set[Edge]:
    """The edges that close a loop, found by a depth-first walk from the input.

    Neighbours are visited in the order of their names, so that the choice depends on the graph
    alone. An edge to a layer that the walk is still inside of closes a loop.
    """
    targets: dict[str, list[str]] = {}
    for source, target in sorted(set(edges), reverse=True):
        targets.setdefault(source, []).append(target)
    found: set[Edge] = set()
    open_, done = {first}, set[str]()
    stack = [(first, targets.get(first, []))]
    while stack:
        name, rest = stack[-1]
        if not rest:
            stack.pop()
            open_.discard(name)
            done.add(name)
        elif (target := rest.pop()) in open_:
            found.add((name, target))
        elif target not in done:
            open_.add(target)
            stack.append((target, targets.get(target, [])))
    return found


def ordered(preds: Mapping[str, Iterable[str]]) -> list[str]:
    """A topological order of nodes; RequestError (E_CYCLE) names the nodes of a loop."""
    waiting = {name: set(sources) for name, sources in preds.items()}
    targets: dict[str, list[str]] = {name: [] for name in preds}
    for name, sources in waiting.items():
        for source in sorted(sources):
            targets[source].append(name)
    ready = [name for name, sources in waiting.items() if not sources]
    order: list[str] = []
    while ready:
        name = ready.pop()
        order.append(name)
        for target in targets[name]:
            waiting[target].discard(name)
            if not waiting[target]:
                ready.append(target)
    if len(order) < len(waiting):
        left = {name: sources for name, sources in waiting.items() if sources}
        name, walk = min(left), dict[str, None]()
        while name not in walk:
            walk[name] = None
            name = min(source for source in left[name] if source in left)
        names = list(walk)
        loop = [name, *reversed(names[names.index(name) :])]
        raise RequestError("E_CYCLE", " -> ".join(f"'{name}'" for name in loop[:12]))
    return order


def _without_memory(layer: Layer, network: Network) -> list[str]:
    """Sources whose value reaches a layer that keeps nothing from step to step."""
    if isinstance(layer.neuron, Stateful):
        return []
    return [
        synapse.source
        for synapse in layer.synapses
        if synapse.source != network.input
        and not any(isinstance(op, Delay) and op.steps for op in synapse.operations)
    ]


def check_loops(network: Network) -> None:
    """Raise RequestError (E_CYCLE): a loop without a state in it, or a recurrent synapse that
    closes no loop (the layer it comes from should stand first)."""
    try:
        ordered({layer.name: _without_memory(layer, network) for layer in network.layers})
    except RequestError as error:
        raise RequestError(
            "E_CYCLE",
            f"values go round in {error.message}, where nothing has a state; expected a neuron "
            "with a membrane, or a delay",
        ) from None
    reached: dict[str, int] = {network.input: 0}  # a bit for each layer on a path to this one
    for place, layer in enumerate(network.layers):
        reached[layer.name] = 1 << place
        for synapse in layer.synapses:
            if not network.late(layer, synapse):
                reached[layer.name] |= reached[synapse.source]
    for place, layer in enumerate(network.layers):
        for synapse in layer.synapses:
            if network.late(layer, synapse) and not reached[synapse.source] >> place & 1:
                raise RequestError(
                    "E_CYCLE",
                    f"layer '{layer.name}' stands before '{synapse.source}', which feeds it and "
                    f"does not depend on it; expected '{synapse.source}' first",
                )


def _reachable(targets: Mapping[str, Iterable[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for target in targets[ahead.pop()]:
            if target not in found:
                found.add(target)
                ahead.append(target)
    return found


def components(network: Network) -> tuple[tuple[Layer, ...], ...]:
    """Layers that must be computed together, step by step, in an order that runs group by group.

    A group is a single layer (recurrent when it feeds itself), or all layers of loops that touch.
    Within a group layers keep the network's order.
    """
    sources: dict[str, list[str]] = {name: [] for name in network.positions}
    targets: dict[str, list[str]] = {name: [] for name in network.positions}
    for layer in network.layers:
        for synapse in layer.synapses:
            sources[layer.name].append(synapse.source)
            targets[synapse.source].append(layer.name)
    group = {layer.name: layer.name for layer in network.layers}
    for layer in network.layers:
        if group[layer.name] == layer.name and any(
            network.late(layer, synapse) for synapse in layer.synapses
        ):
            for name in _reachable(targets, layer.name) & _reachable(sources, layer.name):
                group[name] = layer.name
    members: dict[str, list[Layer]] = {}
    for layer in network.layers:
        members.setdefault(group[layer.name], []).append(layer)
    preds = {
        head: {
            group[synapse.source]
            for layer in layers
            for synapse in layer.synapses
            if synapse.source != network.input
        }
        - {head}
        for head, layers in members.items()
    }
    return tuple(tuple(members[head]) for head in ordered(preds))
