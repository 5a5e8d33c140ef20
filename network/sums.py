"""Sum layers in NIR: there is no node for them, so they are taken out of a graph and put back.

Several edges into one NIR node mean the sum of their signals. A Sum layer with predecessors P and
successors Q is therefore the edges P x Q; which edges once were a Sum is kept as a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from ..errors import RequestError
from .layers import Shape
from .node_fields import MAX_SIZE
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
    """Replace every Sum (given in topological order) by edges from its sources to its targets.

    The new edges stand where the Sum's edge stood, so that the order of addition is kept. Raises
    RequestError (E_EDGES) when an edge would be there twice: NIR holds an edge once.
    """
    left = {name: list(sources) for name, sources in preds.items()}
    targets = successors(left)
    records = []
    for name, shape in sums.items():
        sources = left.pop(name)
        records.append(SumRecord(name, tuple(sources), tuple(targets[name]), shape))
        for target in targets[name]:
            twice = set(sources) & set(left[target])
            if twice:
                raise RequestError(
                    "E_EDGES",
                    f"the Sum layer '{name}' cannot be written to NIR: '{target}' would be fed "
                    f"twice by '{min(twice)}', and NIR holds an edge once",
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
                "E_CONTRACT", f"the contract's sum '{record.name}' bears the name of a node"
            )
        if len(set(record.sources)) < len(record.sources):
            raise RequestError(
                "E_CONTRACT", f"the contract's sum '{record.name}' is fed twice by one source"
            )
        for target in record.targets:
            missing = set(record.sources) - set(found.get(target, ()))
            if missing or not record.sources:
                raise RequestError(
                    "E_CONTRACT",
                    f"the contract's sum '{record.name}' needs the edge "
                    f"'{min(missing, default='?')}' -> '{target}', which the graph does not hold",
                )
            at = min(found[target].index(source) for source in record.sources)
            found[target][at] = record.name
            found[target] = [s for s in found[target] if s not in record.sources]
        found[record.name] = list(record.sources)
    return found
