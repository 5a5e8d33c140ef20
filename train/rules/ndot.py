"""NDOT: the name is reserved; not shipped before its published algorithm was read."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import RequestError


@dataclass(frozen=True)
class NDOT:
    """Jiang et al., "NDOT: Neuronal Dynamics-based Online Training for Spiking Neural Networks",
    ICML 2024. Raises RequestError (E_RULE) when made."""

    def __post_init__(self) -> None:
        raise RequestError(
            "E_RULE",
            "rule 'ndot' is not shipped: its paper's algorithm has not been read, and a guess "
            "would bear its name; rule 'ottt_online' learns online too",
        )


PLUGIN = NDOT
