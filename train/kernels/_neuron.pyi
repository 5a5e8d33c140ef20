"""The compiled neuron: float32 rows (T, N), filled in place; ValueError when they do not fit."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

class Settings:
    def __init__(
        self,
        *,
        decay: float,
        threshold: float,
        at_threshold: bool,
        subtract: bool,
        detach: bool,
        surrogate: str,
        width: float,
        threads: int,
    ) -> None: ...

def stream(
    current: Array, spikes: Array, rate: Array, kappa: Array, settings: Settings
) -> None: ...
def forward(current: Array, spikes: Array, membrane: Array | None, settings: Settings) -> None: ...
def backward(gradient: Array, membrane: Array, current: Array, settings: Settings) -> None: ...
