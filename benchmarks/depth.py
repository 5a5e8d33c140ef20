"""The width of the surrogate in deep networks: what becomes of the gradient, and of the training.

Without an option: the norm of the gradient at each population's currents, before training, for a
plain dense net of 50 populations and a narrow ResNet-50 on Fashion-MNIST, under each rule and at
four widths: a narrow one, the customary one, the tuned one (`snnpipe.train.tuning`), a wide one.
Prints a table and draws docs/tuning.png.

``--train FAMILY RULE OPTIMIZER LR [EPOCHS HELD_OUT]``: nets of several depths at the customary and
at the tuned width, three seeds each: validation accuracy after the last epoch. ``plain``: dense, 8,
20 and 50 populations; ``residual``: ResNet-18 of width 16 and ResNet-50 of width 8, ImageNet stem.

``--reach``: whether a width within the bounds levels a dense net of 20 populations, for many
neurons, surrogates, T and rules; where none does, the same with other initial gains.

    OMP_NUM_THREADS=1 python benchmarks/depth.py
    OMP_NUM_THREADS=1 python benchmarks/depth.py --reach
    OMP_NUM_THREADS=1 python benchmarks/depth.py --train plain bptt sgd 0.1
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from snnpipe.train.build import build, rule_of
from snnpipe.train.coding import seen
from snnpipe.train.examples import Batches, hold_out, stored_on
from snnpipe.train.fit import fit
from snnpipe.train.recipe import (
    DataPart,
    ModelPart,
    NeuronPart,
    Recipe,
    RulePart,
    SurrogatePart,
    TrainPart,
)
from snnpipe.train.tuning import GAINS, LEAST, MOST, Trial, measure, tune, with_choice

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "tuning.png"
SEEDS, IMAGES = 3, 5000
FAMILIES = {
    "plain": {f"dense {n}": ModelPart("mlp", hidden=(64,) * n) for n in (8, 20, 50)},
    "residual": {
        "ResNet-18": ModelPart("resnet18", width=16, stem="imagenet"),
        "ResNet-50": ModelPart("resnet50", width=8, stem="imagenet"),
    },
}
NETS = {
    "plain, 50 populations": ModelPart("mlp", hidden=(64,) * 50),
    "ResNet-50, width 8": ModelPart("resnet50", width=8),
}
NARROW, CUSTOMARY, WIDE = 0.25, 1.0, 4.0


def recipe(model: ModelPart, rule: str, **train: object) -> Recipe:
    """House defaults but for these."""
    return Recipe(DataPart("fashion_mnist"), model, rule=RulePart(rule), train=TrainPart(**train))


def batches(
    recipe: Recipe, share: float = 0.0
) -> tuple[Batches, tuple[torch.Tensor, torch.Tensor]]:
    """Of the first images, and what is held out of them."""
    settings, data = recipe.train, seen(recipe)
    images, labels = data.source.load(None, "train", settings.steps)
    kept, held = hold_out((images[:IMAGES], labels[:IMAGES]), share, settings.seed)
    device = torch.device("cpu")
    return Batches(
        *stored_on(device, kept), data.source.scale, recipe.data, settings.batch, settings.seed,
        data.classes, steps=settings.steps,
    ), stored_on(device, held)  # fmt: skip


def gradients() -> None:
    """The table and the figure."""
    curves: dict[tuple[str, str], dict[str, Trial]] = {}
    for title, model in NETS.items():
        for rule in ("bptt", "rate"):
            chosen = recipe(model, rule, batch=32)
            batch = next(batches(chosen)[0].epoch(1))
            tuning = tune(chosen, batch)
            found = curves[title, rule] = {
                f"{width:g}": measure(chosen, width, 1.0, batch)
                for width in (NARROW, CUSTOMARY, WIDE)
            }
            found[f"tuned, {tuning.chosen.width:.2f}"] = tuning.chosen
            print(
                f"\n{title}, {rule}: the gradient at the first population's currents, in the last's"
            )
            for width, one in found.items():
                norms = one.gradients
                print(
                    f"  width {width:12} {norms[0] / norms[-1]:9.2e}   "
                    f"per population {one.growth:5.3f}   at populations 1, 1/4, 1/2, 3/4: "
                    + " ".join(f"{norms[k * len(norms) // 4] / norms[-1]:8.1e}" for k in range(4))
                )
    draw(curves)


def draw(curves: dict[tuple[str, str], dict[str, Trial]]) -> None:
    """A panel for each net and rule."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharey="row", layout="constrained")
    for place, ((title, rule), found) in zip(axes.flat, curves.items(), strict=True):
        for width, one in found.items():
            norms = [norm / one.gradients[-1] for norm in one.gradients]
            bold = width.startswith("tuned")
            place.semilogy(range(1, len(norms) + 1), norms, label=width, lw=2.5 if bold else 1.2)
        place.set_title(f"{title}, rule {rule}", fontsize=10)
        place.axhline(1.0, color="0.8", lw=0.8, zorder=0)
        place.legend(title="width", fontsize=8, title_fontsize=8)
    figure.supxlabel("population, from the input to the output")
    figure.supylabel("gradient at its currents, in the last one's")
    figure.savefig(FIGURE, dpi=110)
    print(f"\n{FIGURE}")


def train(
    family: str,
    rule: str,
    optimizer: str,
    rate: float,
    epochs: float = 4,
    held_out: float = 0.3,
) -> None:
    """The table of trainings."""
    print(f"rule {rule}, {optimizer}, lr {rate}: validation accuracy, mean of {SEEDS} seeds (each)")
    for name, model in FAMILIES[family].items():
        for tuned in (False, True):
            started, found, widths = time.process_time(), [], []
            for seed in range(SEEDS):
                one = recipe(
                    model, rule, seed=seed, epochs=int(epochs), optimizer=optimizer, lr=rate,
                    weight_decay=0.0,
                )  # fmt: skip
                shown, held = batches(one, held_out)
                if tuned:
                    chosen = tune(one, next(shown.epoch(1))).chosen
                    one = with_choice(one, chosen.width, chosen.gain)
                torch.manual_seed(seed)
                fitted = fit(one, rule_of(one), build(one), shown, held)
                found.append(100 * float(fitted.epochs[-1].validation_accuracy or 0.0))
                widths.append(float(one.surrogate.width))
            print(
                f"  {name:9}  width {statistics.mean(widths):5.3f}  "
                f"{statistics.mean(found):6.2f} % "
                f"({', '.join(f'{x:.2f}' for x in found)})  "
                f"{time.process_time() - started:5.1f} CPU s",
                flush=True,
            )


def reach() -> None:
    """The combinations that no width levels, with the growth at the bounds for each gain."""
    neurons = [
        *(NeuronPart(decay=decay) for decay in (0.0, 0.25, 0.5, 0.9)),
        *(NeuronPart(threshold=threshold) for threshold in (0.5, 2.0, 4.0)),
        NeuronPart(decay=0.9, detach_reset=False),
        NeuronPart(detach_reset=False),
        NeuronPart(reset="subtract"),
        NeuronPart(reset="subtract", detach_reset=False),
        NeuronPart("if"),
    ]
    forms = ("sigmoid", "triangle", "rectangle", "arctan", "fast_sigmoid")
    model = ModelPart("mlp", hidden=(64,) * 20)
    batch = next(batches(recipe(model, "bptt"))[0].epoch(1))
    levelled: dict[str, int] = {"bptt": 0, "rate": 0}
    total = 0
    for neuron, form, steps in product(neurons, forms, (1, 4, 16)):
        total += 1
        for rule in levelled:
            one = replace(
                recipe(model, rule, steps=steps), neuron=neuron, surrogate=SurrogatePart(form)
            )
            rows = []
            for gain in GAINS:
                least, most = (measure(one, width, gain, batch).growth for width in (LEAST, MOST))
                rows.append(f"{gain:.2f}: {least:.2f} to {most:.2f}")
                if gain == 1.0 and most < 1.0 < least:
                    levelled[rule] += 1
                    break
            else:
                print(f"{rule} T={steps} {form} {neuron}: {', '.join(rows)}", flush=True)
    print(f"levelled by a width alone, of {total} combinations for each rule: {levelled}")


def main(words: list[str]) -> None:
    """As asked."""
    torch.set_num_threads(1)
    if words[:1] == ["--train"]:
        train(words[1], words[2], words[3], *map(float, words[4:]))
    elif words[:1] == ["--reach"]:
        reach()
    else:
        gradients()


if __name__ == "__main__":
    main(sys.argv[1:])
