"""Training examples: the held-out share, and shuffled, augmented batches of the rest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import tee

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from . import augment
from .augment import Draw
from .coding import latency
from .dataset import Examples, Lazy
from .prefetch import ahead, workers
from .recipe import DataPart

Rows = NDArray[np.int64]


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """(the rest, the held-out ``share``): the same share of every class, drawn by ``seed``."""
    images, labels = examples
    draw = np.random.default_rng(seed)
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held[rows[: round(len(rows) * share)]] = True
    return (images[~held], labels[~held]), (images[held], labels[held])


def stored_on(device: torch.device, examples: Examples) -> tuple[Tensor | Lazy, Tensor]:
    """Stored inputs as a tensor on a device, or unread as they are, and labels there."""
    images, labels = examples
    moved = torch.from_numpy(labels).to(device)
    if isinstance(images, Lazy):
        return images, moved
    return torch.from_numpy(np.ascontiguousarray(images)).to(device), moved


def in_order(images: Tensor | Lazy, labels: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Stored inputs (B, ...) and labels (B,), batch by batch, on the labels' device."""
    places = [np.arange(len(images))[at : at + batch] for at in range(0, len(images), batch)]
    for rows, stored in zip(places, _stored(images, places, labels.device), strict=True):
        yield stored, labels[int(rows[0]) : int(rows[-1]) + 1]


def _stored(
    images: Tensor | Lazy, places: Iterable[Rows], device: torch.device
) -> Iterator[Tensor]:
    if isinstance(images, Lazy):
        for read in ahead(images, places):
            yield torch.from_numpy(read).to(device)
        return
    for rows in places:
        yield images[torch.from_numpy(rows).to(device)]


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames (B, C, H, W) or (T, B, C, H, W), float32, their labels (B,), and what is to be learned
    from them: the labels, or shares of classes (B, K) where images were blended."""

    frames: Tensor
    labels: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class _Plan:
    """What becomes of one batch: its rows of the data set, the places in it that this process
    takes, those that it needs for them, and what is drawn for all."""

    members: Rows
    own: Rows
    needed: Rows
    draw: Draw

    @property
    def rows(self) -> Rows:
        """Of the data set, to be read."""
        return self.members[self.needed]


@dataclass(eq=False)
class Batches:
    """Labelled images or recordings, handed out in batches of one size on the labels' device; what
    is left over waits for the next epoch's order.

    Order and augmentation of a batch depend on ``seed``, the number of the epoch and the batch's
    place in it, on nothing that came before. Of ``world`` processes each gets its slice of every
    batch. ``steps``: T of images that ``settings`` code. ``waited``: seconds in this epoch that the
    taker waited for batches. Raises RequestError (E_RECIPE), CouldNotRunError (E_MISSING).
    """

    images: Tensor | Lazy
    labels: Tensor
    scale: float
    settings: DataPart
    batch: int
    seed: int
    classes: int
    rank: int = 0
    world: int = 1
    steps: int = 1
    waited: float = field(default=0.0, init=False)
    _making: float = field(default=0.0, init=False)
    _reading: list[float] = field(default_factory=list, init=False)
    _size: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        item = self.images[:1].read() if isinstance(self.images, Lazy) else self.images
        augment.check(self.settings, tuple(item.shape[1:]), self.scale)
        self._size = (int(item.shape[-2]), int(item.shape[-1]))

    @property
    def count(self) -> int:
        """Images or recordings."""
        return len(self.images)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch; fewer images than a batch make one batch."""
        return max(1, self.count // self.batch)

    @property
    def seen_scale(self) -> float:
        """What one level of an input is worth as the network sees it: coded ones are spikes."""
        return self.scale if self.settings.coding == "direct" else 1.0

    @property
    def worked(self) -> float:
        """Seconds that this epoch's batches cost here, all readers at work: as long as they would
        have taken if nobody else had had work to do."""
        return self._making + sum(self._reading) / workers()

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """Every image once, in an order of its own for each ``number``, without the first ``skip``
        batches."""
        order = np.random.default_rng((self.seed, number)).permutation(self.count)
        self.waited, self._making, self._reading = 0.0, 0.0, []
        plans, again = tee(self._plan(order, number, at) for at in range(skip, self.per_epoch))
        stored = _stored(self._timed(), (plan.rows for plan in again), self.labels.device)
        asked = time.perf_counter()
        for plan, images in zip(plans, stored, strict=True):
            begun = asked if isinstance(self.images, Tensor) else time.perf_counter()
            batch = self._made(plan, images)
            done = time.perf_counter()
            self.waited += done - asked
            self._making += done - begun
            yield batch
            asked = time.perf_counter()

    def _timed(self) -> Tensor | Lazy:
        """The inputs, of which each tells how long it took to read."""
        if isinstance(self.images, Tensor):
            return self.images
        item, durations = self.images.item, self._reading

        def timed(row: int) -> NDArray[np.uint8]:
            begun = time.perf_counter()
            read = item(row)
            durations.append(time.perf_counter() - begun)
            return read

        return Lazy(self.images.rows, timed)

    def _plan(self, order: Rows, number: int, index: int) -> _Plan:
        members = order[index * self.batch : (index + 1) * self.batch]
        random = np.random.default_rng((self.seed, number, 1 + index))
        draw = Draw.of(self.settings, len(members), self._size, random)
        first, last = (len(members) * part // self.world for part in (self.rank, self.rank + 1))
        own = np.arange(first, last)
        needed = np.union1d(own, draw.partners[own]) if self.settings.mixup else own
        return _Plan(members, own, needed, draw)

    def _made(self, plan: _Plan, stored: Tensor) -> Batch:
        """``stored``: the inputs at ``plan.rows``."""
        draw = plan.draw
        frames = augment.moved(stored, draw, plan.needed, self.settings).float() * self.scale
        labels = self._labels(plan.members[plan.own])
        targets = labels
        if self.settings.mixup:
            partners = draw.partners[plan.own]
            mine, theirs = (
                frames[torch.from_numpy(np.searchsorted(plan.needed, places)).to(frames.device)]
                for places in (plan.own, partners)
            )
            shares = torch.from_numpy(draw.shares[plan.own]).to(frames)
            frames = augment.blended(mine, theirs, shares)
            classes = (labels, self._labels(plan.members[partners]))
            first, second = (F.one_hot(each, self.classes).to(frames) for each in classes)
            targets = augment.blended(first, second, shares)
        return Batch(self._coded(frames, plan), labels, targets)

    def _labels(self, rows: Rows) -> Tensor:
        return self.labels[torch.from_numpy(rows).to(self.labels.device)]

    def _coded(self, frames: Tensor, plan: _Plan) -> Tensor:
        """Frames (B, C, H, W) or (B, T, C, H, W) as a learning rule takes them."""
        if self.settings.coding == "latency":
            spikes = [latency(frames, at, self.steps) for at in range(self.steps)]
            return torch.stack(spikes).float()
        if self.settings.coding == "rate":
            draw = torch.Generator(frames.device).manual_seed(int(plan.draw.seeds[0]))
            shape = (len(plan.members), *frames.shape[1:])
            own = torch.from_numpy(plan.own).to(frames.device)
            chances = [
                torch.rand(shape, generator=draw, device=frames.device)[own]
                for _ in range(self.steps)
            ]
            return torch.stack([(chance < frames).float() for chance in chances])
        return frames.transpose(0, 1) if frames.dim() == 5 else frames
