"""The compiled neuron: float32 rows (T, N), filled in place; ValueError when they do not fit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
SURROGATES: list[str]

class Settings:
    def __init__(
        self,
        *,
        decay: float,
        synaptic_decay: float | None,
        threshold: float,
        thresholds: Array | None,
        at_threshold: bool,
        subtract: bool,
        detach: bool,
        cut: bool,
        surrogate: str,
        width: float,
        threads: int,
    ) -> None: ...

def stream(
    current: Array,
    spikes: Array,
    rates: Array,
    slopes: Sequence[Sequence[Sequence[Array | None]]],
    settings: Settings,
) -> None: ...
def forward(current: Array, spikes: Array, membrane: Array | None, settings: Settings) -> None: ...
def backward(
    gradient: Array,
    membrane: Array,
    current: Array,
    decay: Array | None,
    synaptic_decay: Array | None,
    settings: Settings,
) -> None: ...
