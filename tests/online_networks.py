"""Modules and oracles for the tests of rules that go step by step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from snnpipe.train.frames import in_time, through
from snnpipe.train.modules import Recurrent
from snnpipe.train.protocol import Part
from snnpipe.train.rules.bptt import Unrolled
from snnpipe.train.rules.sltt import cut_in_time
from snnpipe.train.stepwise import parts
from torch import nn
from training_networks import CLASSES, RESETS

EXACT = 1e-12
T = 6
PER_STEP = ("per_step", "per_step")
NORM = pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
RESET = pytest.mark.parametrize(("reset", "detach"), RESETS)


def equal_states(a: nn.Module, b: nn.Module) -> None:
    for name, value in a.state_dict().items():
        if not name.endswith("num_batches_tracked"):  # it counts calls
            torch.testing.assert_close(value, b.state_dict()[name], rtol=EXACT, atol=EXACT)


class AllAtOnce:
    """SLTT as one graph over all steps, normalised per step: an oracle for one step at a time."""

    def __call__(self, model, x, steps, norm, watch=None):
        yield Part(through(model, in_time(x, steps), Unrolled(steps, watch, norm, cut=True)))


class OnlySteps:
    """SLTT that learns from given steps."""

    def __init__(self, *learned: int) -> None:
        self.learned = learned

    def __call__(self, model, x, steps, norm, watch=None):
        yield from parts(cut_in_time(model, steps, watch), x, steps, self.learned, 1 / steps)


class Branches(nn.Module):
    """Maps in a chain, maps that meet before neurons, pooling between, neurons of two kinds."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.a = nn.Conv2d(1, 4, 3, padding=1)
        self.b = nn.Conv2d(1, 4, 1, bias=False)
        self.chained = nn.Conv2d(4, 3, 3, stride=(2, 1), padding=(1, 0), groups=1)
        self.other = nn.Conv2d(1, 4, 3, padding=1)
        self.first, self.second = first, second
        self.fc = nn.Linear(3 * 4 * 6 + 4 * 16, CLASSES)
        for conv in (self.a, self.b, self.chained, self.other):
            nn.init.normal_(conv.weight, 0.25, 0.5)
        self.double()

    def forward(self, x):
        met = 0.5 * self.a(x) - self.b(-x)
        one = self.first(self.chained(met))
        two = self.second(F.avg_pool2d(self.other(x), 2))
        joined = torch.cat([torch.flatten(one, 1), torch.flatten(two, 1)], 1)
        return self.fc(joined)


def one_layer(neuron: nn.Module, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        neuron,
        nn.Flatten(),
        nn.Linear(144, CLASSES),
    ).double()
    nn.init.normal_(model[0].weight, 0.3, 0.5)
    if norm:
        nn.init.uniform_(model[1].weight, 0.5, 2.0)
        nn.init.normal_(model[1].bias, 0.3, 0.2)
    return model


def recurrent(neuron: nn.Module, scale: float) -> nn.Sequential:
    """A recurrent layer whose weights are ``scale`` times a draw."""
    torch.manual_seed(4)
    layer = Recurrent(neuron, nn.Linear(9, 9))
    layer.weights.weight.data.normal_(0.2, 0.5).mul_(scale)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), layer, nn.Linear(9, CLASSES)).double()
    model[1].weight.data.normal_(0.04, 0.2)
    return model
