"""The optimiser, its steps, and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .recipe import TrainPart

_TRUST = 1e-3
"""The coefficient eta of LARS, as in its paper."""


class LARS(Optimizer):
    """SGD with momentum whose step on each weight is as long as the weight allows.

    v <- momentum v + lr trust (g + decay w), w <- w - v, with trust = eta |w| / (|g| + decay |w|)
    for weights of linear maps and 1 for all else (You et al., arXiv 1708.03888, eq. 6 and
    Algorithm 1). Where a norm is 0 the trust is 1.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        decay, state = group["weight_decay"], self.state[weight]
        rate = group["lr"] * _trust(weight, gradient, decay)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity = state["momentum_buffer"]
        velocity.mul_(group["momentum"]).add_((gradient + decay * weight) * rate)
        weight.sub_(velocity)


def _trust(weight: Tensor, gradient: Tensor, decay: float) -> Tensor | float:
    """The trust eta |w| / (|g| + decay |w|), on the device: nothing waits for it."""
    if weight.dim() <= 1:
        return 1.0
    size, slope = weight.norm(), gradient.norm()
    trust = _TRUST * size / (slope + decay * size)
    return torch.where((size > 0) & (slope > 0), trust, torch.ones_like(trust))


def optimiser(model: nn.Module, settings: TrainPart) -> Optimizer:
    """AdamW, SGD or LARS; weights of linear maps decay, biases and normalisation do not."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    free = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.lr, fused=True)
    if settings.optimizer == "lars":
        return LARS(groups, settings.lr, settings.momentum)
    return SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)


def clipped(model: nn.Module, settings: TrainPart) -> float:
    """The norm of the whole gradient, which is then shortened to ``clip`` if it was longer.

    To be called once per step of the optimiser, when the gradient is complete. A gradient that is
    not finite is left as it is.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if settings.clip and settings.clip < norm < math.inf:
        nn.utils.clip_grads_with_norm_(parameters, settings.clip, norm)
    return float(norm)


def share_of_rate(settings: TrainPart, progress: float) -> float:
    """The share of ``lr`` at ``progress`` (0 to 1) through all updates.

    onecycle: from 1/25 up and down to nearly 0, both on a half cosine (the course of Smith and
    Topin, arXiv 1708.07120); cosine: up on a line, down on a half cosine; constant: up on a line.
    """
    if progress < settings.warmup:
        risen = progress / settings.warmup
        if settings.schedule == "onecycle":
            return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * risen)) / 2
        return risen
    if settings.schedule == "constant":
        return 1.0
    gone = (progress - settings.warmup) / (1 - settings.warmup)
    return (1 + math.cos(math.pi * gone)) / 2


def course(optimizer: Optimizer, settings: TrainPart, updates: int) -> LambdaLR:
    """Moves the learning rate after every update; each is taken at the middle of its share."""
    return LambdaLR(optimizer, lambda done: share_of_rate(settings, (done + 0.5) / updates))
