"""How near a rule's gradient is to that of backpropagation through time after 50 updates, and what
became of the training: plain convolutional nets on the digits.

Each row: a net of so many populations (16 channels, 3x3, stride 2 in the first, batch norm, LIF)
trained for 50 updates with the rule, then the cosine of its gradient to the exact one over the
weights of the linear maps (lowest, mean); then so many updates from the same start with the rule
and with backpropagation through time, and the accuracies on the 450 test images. Inputs: ``direct``
shows the same image at every step, ``rate`` draws a spike for each pixel and step, ``latency`` has
one spike for each pixel, earlier for brighter ones: as events, it is another frame at every step.

    OMP_NUM_THREADS=1 python benchmarks/preflight.py rate --inputs latency rate --seeds 1
"""

from __future__ import annotations

import argparse
from itertools import islice, product

import torch
from snnpipe.train.build import build, rule_of
from snnpipe.train.coding import seen
from snnpipe.train.evaluate import score
from snnpipe.train.preflight import UPDATES, cosines, practise
from snnpipe.train.recipe import DataPart, ModelPart, NeuronPart, Recipe, RulePart, TrainPart
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.tuning import first_batches


def recipe(rule: str, depth: int, decay: float, coding: str, seed: int) -> Recipe:
    """House defaults but for these."""
    return Recipe(
        DataPart("digits", coding=coding),
        ModelPart(channels=(16,) * depth, strides=(2, *[1] * (depth - 1))),
        NeuronPart(decay=decay),
        rule=RulePart(rule),
        train=TrainPart(seed=seed),
    )


def measured(recipe: Recipe, updates: int) -> list[float]:
    """Lowest and mean cosine, accuracy under the rule and under backpropagation through time."""
    settings, rule, data = recipe.train, rule_of(recipe), seen(recipe)

    def trained(by: object, count: int) -> torch.nn.Module:
        torch.manual_seed(settings.seed)
        model = build(recipe)
        practise(model, recipe, by, first_batches(recipe, None, settings.batch), count)
        return model

    batch = next(islice(first_batches(recipe, None, settings.batch), UPDATES, None))
    near = cosines(trained(rule, UPDATES), recipe, rule, batch)
    found = [min(near.values()), sum(near.values()) / len(near)]
    images, labels = map(torch.from_numpy, data.load(None, "test", settings.steps))
    for by in (rule, BPTT()):
        model = trained(by, updates).eval()
        found.append(score(model, images, labels, data.scale, settings.steps).accuracy)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rules", nargs="+")
    parser.add_argument("--inputs", nargs="+", default=["direct", "latency", "rate"])
    parser.add_argument("--decays", nargs="+", type=float, default=[0.25, 0.9])
    parser.add_argument("--depths", nargs="+", type=int, default=[2, 9, 17])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"accuracies after {asked.updates} updates; means of {asked.seeds} seeds")
    for rule, coding, decay, depth in product(
        asked.rules, asked.inputs, asked.decays, asked.depths
    ):
        rows = [
            measured(recipe(rule, depth, decay, coding, seed), asked.updates)
            for seed in range(asked.seeds)
        ]
        lowest, mean, own, exact = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        print(
            f"{rule:6} {coding:8} decay {decay:<4} depth {depth:2}  cosine {lowest:6.3f} "
            f"{mean:6.3f}  accuracy {own:6.2%}  bptt {exact:6.2%}  {100 * (own - exact):+6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
