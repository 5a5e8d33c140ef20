"""Time, memory and accuracy over T under three rules, on a narrow ResNet-18: one epoch each.

Every run is a process of its own. Time and memory are those of the epoch, test images not counted:
memory is what the process held at most, looked at every few milliseconds, less what it held before.

    python benchmarks/t_scaling.py --data DIR [--limit 10000] [--rules rate,bptt,sltt]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnpipe.train.recipe import Recipe
from snnpipe.train.recipe_file import read_recipe
from snnpipe.train.run import train_run

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "fashion_mnist-resnet18.toml"
RULES = ("rate", "bptt", "sltt")
STEP_BY_STEP = ("sltt", "sltt_k", "ottt", "ottt_online")
"""Rules that learn from each step's own loss and normalise each step by itself."""
STEPS = (1, 2, 4, 8)
COLOURS = ("#d95f02", "#1f77b4", "#2a9d5c", "#7f7f7f")
"""Each stands out on white and on black."""


@dataclass(frozen=True)
class Point:
    """One run: seconds of wall and of processor time, MiB, share of the test images right."""

    seconds: float
    processor: float
    mebibytes: float
    right: float


def variant(rule: str, steps: int, limit: int) -> Recipe:
    """The recipe under a rule at a T."""
    recipe = read_recipe(RECIPE)
    train = replace(recipe.train, steps=steps, limit=limit)
    loss = recipe.loss
    if rule in STEP_BY_STEP:
        train, loss = replace(train, norm="per_step"), replace(loss, form="per_step")
    return replace(recipe, train=train, loss=loss, rule=replace(recipe.rule, name=rule))


def _held() -> float:
    """What this process holds, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(rule: str, steps: int, limit: int, data_folder: Path | None) -> Point:
    """Train one variant here. The epoch is over when its state is kept."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        run, before, began = Path(folder) / "run", _held(), time.process_time()
        over = threading.Event()

        def watch() -> tuple[float, float]:
            most = before
            while not over.wait(0.005) and not (run / "state.safetensors").is_file():
                most = max(most, _held())
            return most - before, time.process_time() - began

        watching = beside.submit(watch)
        recipe = variant(rule, steps, limit)
        try:
            facts: Mapping[str, Any] = train_run(recipe, data_folder, run, every=math.inf)
        finally:
            over.set()
        mebibytes, processor = watching.result()
    seconds, right = facts["epochs"][-1]["seconds"], facts["test"]["last"]["accuracy"]
    return Point(seconds, processor, mebibytes, right)


def elsewhere(rule: str, steps: int, asked: argparse.Namespace) -> Point:
    """`measure` in a process of its own."""
    own = ["--one", rule, str(steps), "--limit", str(asked.limit)]
    data = [] if asked.data is None else ["--data", str(asked.data)]
    told = subprocess.run(  # noqa: S603 - this file
        [sys.executable, __file__, *own, *data], check=True, capture_output=True, text=True
    ).stdout
    return Point(**json.loads(told.splitlines()[-1]))


def plot(found: Mapping[str, Sequence[Point]], title: str, path: Path) -> None:
    """Three pictures side by side, without a background."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    grey = {"axes.edgecolor": "#808080", "text.color": "#808080", "axes.labelcolor": "#808080"}
    ticks: dict[str, Any] = {"xtick.color": "#808080", "ytick.color": "#808080"}
    panels = (
        ("seconds", "seconds of the epoch", 1),
        ("mebibytes", "memory, MiB", 1),
        ("right", "test accuracy, %", 100),
    )
    with mpl.rc_context({**grey, **ticks, "font.size": 10}):
        figure, row = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
        for axes, (field, label, factor) in zip(row, panels, strict=True):
            for (rule, points), colour in zip(found.items(), COLOURS, strict=False):
                values = [factor * getattr(point, field) for point in points]
                axes.plot(STEPS, values, "o-", color=colour, label=rule)
            axes.set_xscale("log", base=2)
            axes.set_xticks(STEPS, [str(t) for t in STEPS])
            axes.set_xlabel("T")
            axes.set_ylabel(label)
            axes.grid(color="#808080", alpha=0.25)
        row[0].legend(frameon=False)
        figure.suptitle(title)
        figure.savefig(path, dpi=150, transparent=True)
        plt.close(figure)


def main() -> None:
    """Measure, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="where the data sets lie")
    parser.add_argument("--limit", type=int, default=10_000, help="images to train on")
    parser.add_argument("--rules", default=",".join(RULES), help="up to four, by commas")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "t-scaling.png")
    parser.add_argument("--one", nargs=2, metavar=("RULE", "T"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        rule, steps = asked.one
        print(json.dumps(measure(rule, int(steps), asked.limit, asked.data).__dict__))
        return
    print(f"{'rule':<16} {'T':>2}  {'epoch s':>8}  {'CPU s':>8}  {'MiB':>7}  {'right%':>6}")
    found: dict[str, list[Point]] = {rule: [] for rule in asked.rules.split(",")}
    for rule, points in found.items():
        for steps in STEPS:
            point = elsewhere(rule, steps, asked)
            points.append(point)
            print(
                f"{rule:<16} {steps:>2}  {point.seconds:>8.1f}  {point.processor:>8.1f}  "
                f"{point.mebibytes:>7.0f}  {100 * point.right:>6.2f}",
                flush=True,
            )
    plot(found, f"ResNet-18, width 16, one epoch of {asked.limit:,} images", asked.out)


if __name__ == "__main__":
    main()
