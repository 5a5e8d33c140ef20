"""The optimiser and the course of its learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .recipe import TrainPart


def optimiser(model: nn.Module, settings: TrainPart) -> Optimizer:
    """AdamW or SGD; weights of linear maps decay, biases and normalisation do not."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    free = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.lr, fused=True)
    return SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)


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
