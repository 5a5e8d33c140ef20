"""Training examples: the held-out share, and shuffled, mirrored batches of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .dataset import Examples
from .frames import scaled


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """(the rest, the held-out ``share``): the same share of every class, drawn by ``seed``."""
    images, labels = examples
    draw = np.random.default_rng(seed)
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held[rows[: round(len(rows) * share)]] = True
    return (images[~held], labels[~held]), (images[held], labels[held])


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames (B, C, H, W) or (T, B, C, H, W), float32, their labels (B,), and what is to be learned
    from them: the labels, or shares of classes (B, K) where images were blended."""

    frames: Tensor
    labels: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class Batches:
    """Labelled images or recordings on a device, handed out in batches of one size; what is left
    over waits for the next epoch's order."""

    images: Tensor
    labels: Tensor
    scale: float
    batch: int
    flip: bool
    generator: torch.Generator

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch; fewer images than a batch make one batch."""
        return max(1, len(self.images) // self.batch)

    def epoch(self) -> Iterator[Batch]:
        """Every image once, in a new order each time."""
        order = torch.randperm(len(self.images), generator=self.generator)
        for index in range(self.per_epoch):
            rows = order[index * self.batch : (index + 1) * self.batch].to(self.images.device)
            frames = scaled(self.images[rows], self.scale)
            if self.flip:
                mirrored = torch.rand(len(rows), generator=self.generator) < 0.5
                chosen = mirrored.to(frames.device)[:, None, None, None]
                frames = torch.where(chosen, frames.flip(-1), frames)
            labels = self.labels[rows]
            yield Batch(frames, labels, labels)
