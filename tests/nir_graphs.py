"""NIR files as other programs write them: built from plain dictionaries, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Node = dict[str, Any]
Pairs = Sequence[tuple[str, str]]
TEXT = h5py.string_dtype()


def graph(nodes: Mapping[str, Node], edges: Pairs) -> Node:
    """A graph, also as a node of another one."""
    return {"type": "NIRGraph", "nodes": nodes, "edges": list(edges)}


def port(kind: str, *shape: int) -> Node:
    """An Input or an Output."""
    return {"type": kind, "shape": np.array(shape)}


def lif(*shape: int, threshold: float = 1.0) -> Node:
    """Decay 0.75 and gain 1 at dt = 1e-4 s."""
    full = np.ones(shape)
    return {
        "type": "LIF",
        "tau": 4e-4 * full,
        "r": 4 * full,
        "v_leak": 0 * full,
        "v_threshold": threshold * full,
        "v_reset": 0 * full,
    }


def linear(out: int, n: int, seed: int = 0) -> Node:
    """Weights that are multiples of 1/16."""
    weight = np.random.default_rng(seed).integers(-16, 17, (out, n)) / 16
    return {"type": "Linear", "weight": weight.astype(np.float32)}


def chain(names: str) -> list[tuple[str, str]]:
    """Edges along a path, ``a b c``."""
    return list(pairwise(names.split()))


def write(path: Path, node: Node, version: str = "1.0.8") -> Path:
    """A file that holds the graph."""
    with h5py.File(path, "w") as file:
        file.create_dataset("version", data=version, dtype=TEXT)
        stack: list[tuple[h5py.Group, Mapping[str, Any]]] = [(file.create_group("node"), node)]
        while stack:
            group, content = stack.pop()
            for key, value in content.items():
                if isinstance(value, Mapping):
                    stack.append((group.create_group(key), value))
                elif isinstance(value, str | list):
                    group.create_dataset(key, data=value, dtype=TEXT)
                else:
                    group.create_dataset(key, data=value)
    return path


def feed_forward(**changed: Node) -> Node:
    """input (4,), w, lif (4,), v, out (3,), output; nodes may be changed or added."""
    nodes = {
        "input": port("Input", 4),
        "w": linear(4, 4, 1),
        "lif": lif(4),
        "v": linear(3, 4, 2),
        "out": lif(3),
        "output": port("Output", 3),
    }
    return graph({**nodes, **changed}, chain("input w lif v out output"))
