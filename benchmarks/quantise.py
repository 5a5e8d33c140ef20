"""Accuracy of trained runs in Loihi integers, by bits, thresholds and scaling, beside floats.

    python benchmarks/quantise.py RUN [RUN ...] --data DIR [--bits 8,6,4,3,2] [--samples N]

Every row is integer execution on the event engine, on the test set; the difference to the float
network is paired, image by image, and its half-width is that of the 95 % interval over images.
With several runs (seeds) the row shows means, and the range of the differences.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snnpipe import calibration, plugins, runs
from snnpipe.export.flips import Calibration
from snnpipe.export.quantisable import ChipName, Settings, Thresholds
from snnpipe.export.quantise import quantise
from snnpipe.network.layers import Network
from snnpipe.network.nir_file import read_network
from snnpipe.network.trace import Record, predictions
from snnpipe.train.coding import seen
from snnpipe.train.dataset import read
from snnpipe.train.recipe_file import read_recipe
from snnpipe.verify.statistics import Paired, paired

BATCH = 250
THRESHOLDS: tuple[tuple[Thresholds, ChipName], ...] = (
    ("layer", "loihi2"),
    ("channel", "loihi1"),
    ("channel", "loihi2"),
)


def predicted(network: Network, x: NDArray[Any]) -> NDArray[np.int64]:
    """Classes of stored inputs, (B,), on the event engine."""
    session = plugins.load("runtimes", "event").open(network, None)
    steps, parts = network.contract.steps, []
    for start in range(0, len(x), BATCH):
        frames = network.frames(x[start : start + BATCH])
        parts.append(predictions(session.run(frames, steps, Record(spikes=0)).outputs)[-1])
    return np.concatenate(parts)


class Trained:
    """A run: its network on the grid, its test set, and what the float network says of it."""

    def __init__(self, folder: Path, data: Path | None, samples: int | None) -> None:
        where = runs.place(folder)
        recipe = read_recipe(where.recipe, ())
        stored, labels = seen(recipe).load(data, "test", recipe.train.steps)
        self.network = read_network(where.network)
        self.x, self.labels = read(stored[:samples]), labels[:samples]
        self.inputs: Calibration | None = calibration.draw(where, data)
        self.float = predicted(self.network, self.x)

    def judged(self, settings: Settings) -> tuple[Paired, float]:
        """Integers against floats on the same images, and the seconds that quantising took."""
        began = time.perf_counter()
        integer, _ = quantise(self.network, settings, self.inputs)
        took = time.perf_counter() - began
        return paired(self.float, predicted(integer, self.x), self.labels), took


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bits", default="8,6,4,3,2")
    parser.add_argument("--scalings", default="mse,flips")
    parser.add_argument("--first-layers", default="host")
    parser.add_argument("--samples", type=int)
    asked = parser.parse_args()
    trained = [Trained(folder, asked.data, asked.samples) for folder in asked.runs]
    right = [100 * float((run.float == run.labels).mean()) for run in trained]
    shown = ", ".join(f"{share:.2f}" for share in right)
    print(f"float: {np.mean(right):.2f} % (runs: {shown}), n = {len(trained[0].labels):,} each\n")
    print(
        "| bits | first layer | thresholds | scaling | accuracy % | difference, points | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    bits = [int(number) for number in asked.bits.split(",")]
    layers, scalings = asked.first_layers.split(","), asked.scalings.split(",")
    for number, layer, (thresholds, chip), scaling in product(bits, layers, THRESHOLDS, scalings):
        if layer == "graded" and chip == "loihi1":
            continue
        settings = replace(
            Settings(number), first_layer=layer, thresholds=thresholds, chip=chip, scaling=scaling
        )
        found = [run.judged(settings) for run in trained]
        points = [100 * pair.difference for pair, _ in found]
        accuracy = np.mean(right) + np.mean(points)
        width = np.sqrt(sum(pair.half_width**2 for pair, _ in found)) / len(found)
        spread = f" ({min(points):+.2f} to {max(points):+.2f})" if len(points) > 1 else ""
        named = f"{thresholds}, 8 a core" if chip == "loihi1" else thresholds
        print(
            f"| {number} | {layer} | {named} | {scaling} | {accuracy:.2f} | {np.mean(points):+.2f} "
            f"± {100 * width:.2f}{spread} | {np.mean([took for _, took in found]):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
