"""The data set as a recipe sees it: still images may be coded into spikes before they enter.

What a network is given at each step is a matter of the data set and of ``data.coding`` together;
training, witness, export and verification all ask `seen` for it. Numpy only: a device that verifies
codes its test images itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import plugins
from ..errors import RequestError
from ..network.contract import InputCoding
from .dataset import DataSet, Examples, Lazy, Split, Stored
from .recipe import Recipe

Coding = Literal["direct", "rate", "latency"]

_SEED = 0
"""Of the spikes that stand for a test image under rate coding."""


def latency(intensity: Any, step: int, steps: int) -> Any:
    """Which values spike at ``step`` (bool): each once, at t = floor((1 - p) T), black never.

    ``intensity``: p, 0 to 1, of any shape, numpy or torch. The brightest spike at once: with p
    uniform, T steps tell T intensities apart (the linear form of Thorpe's latency code, Neural
    Networks 14 (2001) 715).
    """
    due = (1 - intensity) * steps
    now = due >= step if step == steps - 1 else (due >= step) & (due < step + 1)
    return now & (intensity > 0)


def drawn(levels: NDArray[np.uint8], full: int, steps: int, row: int) -> NDArray[np.uint8]:
    """Rate code of one stored image (C, H, W): at each of ``steps`` a spike with probability
    level / full, (T, C, H, W), the same for ever for the same ``row``.

    ``full`` is a power of two. RandomState draws the same in every numpy release (NEP 19).
    """
    draw = np.random.RandomState((_SEED, row))
    chance = draw.randint(0, full, (steps, *levels.shape), np.uint16)
    return (chance < levels).astype(np.uint8)


@dataclass(frozen=True)
class Seen:
    """A data set whose still images enter under ``code``; what `DataSet` says holds for it.

    Coded images are recordings of zeros and ones: one level, worth 1.
    """

    source: DataSet
    code: Coding

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.source.shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.source.classes

    @property
    def levels(self) -> int:
        """The largest value that enters the network, in units of ``scale``."""
        return self.source.levels if self.code == "direct" else 1

    @property
    def scale(self) -> float:
        """What one level is worth."""
        return self.source.scale if self.code == "direct" else 1.0

    @property
    def coding(self) -> InputCoding:
        """How inputs become steps."""
        return self.source.coding if self.code == "direct" else "events"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:
        """As the data set's own, coded."""
        stored, labels = self.source.load(folder, split, steps)
        return self.coded(stored, steps), labels

    def coded(self, stored: Stored, steps: int) -> Stored:
        """Stored images as they enter the network; the spikes of an image depend on its place."""
        if self.code == "direct":
            return stored
        if isinstance(stored, Lazy):

            def item(row: int) -> NDArray[np.uint8]:
                (levels,) = stored[np.array([row])].read()
                return self._coded(levels, steps, row)

            return Lazy(np.arange(len(stored)), item)
        found = np.empty((len(stored), steps, *stored.shape[1:]), np.uint8)
        for row, levels in enumerate(stored):
            found[row] = self._coded(levels, steps, row)
        return found

    def _coded(self, levels: NDArray[np.uint8], steps: int, row: int) -> NDArray[np.uint8]:
        if self.code == "rate":
            return drawn(levels, round(1 / self.source.scale), steps, row)
        intensity = levels.astype(np.float32) * np.float32(self.source.scale)
        spikes = [latency(intensity, step, steps) for step in range(steps)]
        return np.stack(spikes).astype(np.uint8)


def seen(recipe: Recipe) -> Seen:
    """The recipe's data set as its network sees it.

    Raises RequestError (E_PLUGIN) for an unknown data set, (E_RECIPE) where recordings were to be
    coded.
    """
    source: DataSet = plugins.load("data", recipe.data.name)
    if recipe.data.coding != "direct" and source.coding != "direct":
        raise RequestError(
            "E_RECIPE",
            f"data.coding is {recipe.data.coding}, but data set '{source.name}' holds recordings, "
            "which enter as they are; expected direct",
        )
    return Seen(source, recipe.data.coding)
