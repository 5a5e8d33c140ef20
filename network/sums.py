"""Sum layers in NIR: there is no node for them, so they are taken out of a graph and put back.

Several edges into one NIR node mean the sum of their signals. A Sum layer with predecessors P and
successors Q is therefore the edges P x Q; which edges once were a Sum is kept as a record. The
ports of a graph inside a graph are taken out in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from ..errors import RequestError
from .layers import Shape
from .node_fields import MAX_EDGES, MAX_SIZE
from .plain import Between

Preds = dict[str, list[str]]
"""Node to the nodes that feed it, in the order in which they are added."""


@dataclass(frozen=True)
class SumRecord:
    """One Sum layer that was taken out: what fed it, what it fed, its shape."""

    name: str
    sources: tuple[str, ...] = field(metadata={"key": "from"})
    targets: tuple[str, ...] = field(metadata={"key": "to"})
    shape: tuple[Annotated[int, Between(1, MAX_SIZE)], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "from": list(self.sources),
            "to": list(self.targets),
            "shape": list(self.shape),
        }


def successors(preds: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The same edges, seen from their sources."""
    found: dict[str, list[str]] = {name: [] for name in preds}
    for target, sources in preds.items():
        for source in sources:
            found[source].append(target)
    return found


def eliminate(preds: Preds, sums: Mapping[str, Shape]) -> tuple[Preds, tuple[SumRecord, ...]]:
    """Replace every Sum by edges from its sources to its targets.

    The new edges stand where the Sum's edge stood, so that the order of addition is kept. Raises
    RequestError: E_EDGES when an edge would be there twice, for NIR holds an edge once, E_CYCLE for
    a Sum that feeds itself, E_LIMIT for more than `MAX_EDGES` edges.
    """
    left = {name: list(sources) for name, sources in preds.items()}
    targets = successors(left)
    count = sum(map(len, left.values()))
    records = []
    for name, shape in sums.items():
        sources = left.pop(name)
        if name in sources:
            raise RequestError("E_CYCLE", f"'{name}' feeds itself and has no state")
        records.append(SumRecord(name, tuple(sources), tuple(targets[name]), shape))
        count += len(sources) * len(targets[name]) - len(sources) - len(targets[name])
        if count > MAX_EDGES:
            raise RequestError(
                "E_LIMIT", f"without '{name}' there would be {count} edges; {MAX_EDGES} at most"
            )
        for target in targets[name]:
            twice = set(sources) & set(left[target])
            if twice:
                raise RequestError(
                    "E_EDGES",
                    f"'{name}' is no node of a flat NIR graph, and without it '{target}' would be "
                    f"fed twice by '{min(twice)}'; NIR holds an edge once",
                )
            at = left[target].index(name)
            left[target][at : at + 1] = sources
        for source in sources:
            at = targets[source].index(name)
            targets[source][at : at + 1] = targets[name]
    return left, tuple(records)


def restore(preds: Preds, records: Iterable[SumRecord]) -> Preds:
    """Put recorded Sums back, last one first; the inverse of `eliminate`.

    Raises RequestError (E_CONTRACT) when a record does not fit the edges.
    """
    found = {name: list(sources) for name, sources in preds.items()}
    for record in reversed(tuple(records)):
        if record.name in found:
            raise RequestError(
                "E_CONTRACT", f"the contract's sum {record.name!r} bears the name of a node"
            )
        sources = set(record.sources)
        if len(sources) < len(record.sources):
            raise RequestError(
                "E_CONTRACT", f"the contract's sum {record.name!r} is fed twice by one source"
            )
        for target in record.targets:
            missing = sources - set(found.get(target, ()))
            if missing or not sources:
                raise RequestError(
                    "E_CONTRACT",
                    f"the contract's sum {record.name!r} needs the edge "
                    f"{min(missing, default='?')!r} -> {target!r}, which the graph does not hold",
                )
            fed = found[target]
            at = next(n for n, source in enumerate(fed) if source in sources)
            fed[at] = record.name
            found[target] = [source for source in fed if source not in sources]
        found[record.name] = list(record.sources)
    return found
