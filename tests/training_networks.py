"""Small spiking modules in float64 and their gradients, for the identities of the rules."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from snnpipe.train.modules import LIF
from snnpipe.train.protocol import LearningRule
from snnpipe.train.recipe import LossForm, NormForm
from torch import Tensor, nn

RESETS = [("zero", True), ("zero", False), ("subtract", True), ("subtract", False)]
"""The four cases of reset and detach_reset."""
CLASSES = 5


def convnet(depth: int, norm: bool, **neuron: Any) -> nn.Sequential:
    """``depth`` conv-(BN)-LIF populations on (1, 8, 8) with pooling, and a linear read-out."""
    torch.manual_seed(depth + 10 * norm)
    layers: list[nn.Module] = []
    channels = 1
    for index in range(depth):
        out = 6 + index
        conv = nn.Conv2d(channels, out, 3, padding=1, bias=not norm)
        if not norm:  # batch normalisation would have brought the currents near the threshold
            nn.init.normal_(conv.weight, 0.3 / channels**0.5, 1.2 / (3 * channels**0.5))
        layers += [conv, *([nn.BatchNorm2d(out)] if norm else []), LIF(**neuron)]
        channels = out
    layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * 16, CLASSES)]
    model = nn.Sequential(*layers).double()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, 0.2, 0.2)
    return model


def frames(steps: int | None = None, batch: int = 6) -> Tensor:
    """Random images (B, 1, 8, 8), or different ones at every step (T, B, 1, 8, 8)."""
    shape = (batch, 1, 8, 8) if steps is None else (steps, batch, 1, 8, 8)
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def mean_output(
    rule: LearningRule, model: nn.Module, x: Tensor, steps: int, norm: NormForm = "joint"
) -> Tensor:
    """(B, K), with the graph of a rule that hands out one part."""
    (part,) = rule(model, x, steps, norm)
    return part.mean


def labels(outputs: Tensor) -> Tensor:
    """(B,), for outputs (B, K)."""
    return torch.arange(len(outputs)) % CLASSES


def learn(
    rule: LearningRule,
    model: nn.Module,
    x: Tensor,
    steps: int,
    norm: NormForm = "joint",
    loss: LossForm = "mean_output",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean output over the parts and the gradient of every parameter.

    ``loss``: cross entropy of the mean output, or of each step's and then averaged.
    """
    model.zero_grad()
    mean = torch.zeros(())
    for part in rule(model, x, steps, norm):
        if loss == "mean_output":
            F.cross_entropy(part.mean, labels(part.mean)).backward()
        else:
            each = [F.cross_entropy(output, labels(output)) for output in part.outputs]
            (part.share * torch.stack(each).mean()).backward()
        mean = mean + part.share * part.mean.detach()
    return mean, {n: p.grad.clone() for n, p in model.named_parameters()}


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Relative difference of two gradients, all parameters together."""
    assert a.keys() == b.keys()
    left = torch.cat([value.flatten() for value in a.values()])
    right = torch.cat([b[name].flatten() for name in a])
    assert right.norm() > 1e-6
    return float((left - right).norm() / right.norm())
