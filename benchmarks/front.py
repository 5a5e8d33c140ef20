"""What a spiking net loses for fewer operations: one net, no budget and three, at every T.

Each run trains the recipe's net anew, first without a budget, then to shares of what that one
spends; everything else is equal. Accuracy after 1 .. T steps comes from one pass over the test
images, as a report's does, and so do the synaptic operations that have arrived by then.

    python benchmarks/front.py --data DIR [--epochs 6] [--limit 0] [--draw-steps]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from snnpipe.train.checkpoint import load_run
from snnpipe.train.coding import seen
from snnpipe.train.energy import Energy
from snnpipe.train.evaluate import outputs
from snnpipe.train.examples import in_order, stored_on
from snnpipe.train.frames import scaled
from snnpipe.train.recipe import Recipe
from snnpipe.train.recipe_file import read_recipe
from snnpipe.train.run import train_run

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "fashion_mnist.toml"
SHARES = (0.5, 0.25, 0.1)
COLOURS = ("#7f7f7f", "#1f77b4", "#d95f02", "#2a9d5c")
"""Each stands out on white and on black."""


@dataclass(frozen=True)
class Line:
    """One trained net: its budget (0: none), and after each step its share of test images right
    and its operations per inference."""

    budget: float
    right: list[float]
    synops: list[float]
    n: int


def trained(recipe: Recipe, data_folder: Path | None, folder: Path) -> Line:
    """Train a recipe into ``folder`` and look at it step by step."""
    train_run(recipe, data_folder, folder)
    model, _ = load_run(folder)
    data, steps = seen(recipe), recipe.train.steps
    images, labels = data.load(data_folder, "test", steps)
    spent = Energy.of(model, data, steps).of_images(model, images, data.scale).cumsum()
    right = torch.zeros(steps, dtype=torch.int64)
    for stored, expected in in_order(*stored_on(torch.device("cpu"), (images, labels)), 500):
        sums = outputs(model, scaled(stored, data.scale), steps).double().cumsum(0)
        right += (sums.argmax(-1) == expected).sum(1)
    n = len(labels)
    return Line(recipe.loss.max_synops, (right / n).tolist(), (spent / n).tolist(), n)


def lines(recipe: Recipe, data_folder: Path | None) -> list[Line]:
    """The net without a budget, and with each."""
    found: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        for share in (0.0, *SHARES):
            budget = round(share * found[0].synops[-1]) if found else 0
            own = replace(recipe, loss=replace(recipe.loss, max_synops=float(budget)))
            found.append(trained(own, data_folder, Path(folder) / str(share)))
            print(*rows(found[-1]), sep="\n", flush=True)
    return found


def rows(line: Line) -> list[str]:
    """A line of the table for each T."""
    return [
        f"{line.budget:>10,.0f}  {t:>2}  {100 * right:>6.2f}  {synops:>12,.0f}"
        for t, (right, synops) in enumerate(zip(line.right, line.synops, strict=True), 1)
    ]


def plot(found: Sequence[Line], title: str, path: Path) -> None:
    """The front as a picture without a background."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    grey = {"axes.edgecolor": "#808080", "text.color": "#808080", "axes.labelcolor": "#808080"}
    ticks: dict[str, Any] = {"xtick.color": "#808080", "ytick.color": "#808080"}
    with mpl.rc_context({**grey, **ticks, "font.size": 10}):
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        for line, colour in zip(found, COLOURS, strict=True):
            label = f"budget {line.budget:,.0f}" if line.budget else "no budget"
            percent = 100 * np.array(line.right)
            axes.plot(line.synops, percent, "o-", color=colour, label=label)
            for t, place in enumerate(zip(line.synops, percent, strict=True), 1):
                axes.annotate(
                    str(t), place, (0, 6), textcoords="offset points", color=colour, ha="center"
                )
        axes.set_xscale("log")
        axes.set_xlabel("synaptic operations per inference (numbers: T)")
        axes.set_ylabel("test accuracy, %")
        axes.set_title(title)
        axes.grid(color="#808080", alpha=0.25)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=150, transparent=True)
        plt.close(figure)


def main() -> None:
    """Train, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, default=0, help="train on the first so many images")
    parser.add_argument("--data", type=Path, help="where the data sets lie")
    parser.add_argument("--draw-steps", action="store_true", help="T of each batch is drawn")
    parser.add_argument("--out", type=Path, default=RECIPE.parents[1] / "docs" / "front.png")
    asked = parser.parse_args()
    recipe = read_recipe(RECIPE)
    train = replace(
        recipe.train, epochs=asked.epochs, limit=asked.limit, draw_steps=asked.draw_steps
    )
    print(f"{'budget':>10}  {'T':>2}  {'right%':>6}  {'synops':>12}")
    found = lines(replace(recipe, train=train), asked.data)
    images = f"{asked.limit:,}" if asked.limit else "all"
    title = f"Fashion-MNIST, {asked.epochs} epochs of {images} images, n = {found[0].n:,}"
    plot(found, title, asked.out)


if __name__ == "__main__":
    main()
