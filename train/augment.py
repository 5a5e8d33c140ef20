"""Augmentation of a whole batch at once: crop, flip, AutoAugment, cutout, mixup, in this order.

What is done to each image is drawn for the whole batch before any is touched, so that processes
that share a batch agree. A recording is moved as one: all its frames alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import RequestError
from . import autoaugment
from .recipe import DataPart


@dataclass(frozen=True, eq=False)
class Draw:
    """What happens to each of n images: shifts in pixels, whether it is mirrored, the centre of
    the blank square, the image it is blended with, the share that is left of itself, and a seed."""

    shifts: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    centres: NDArray[np.int64]
    partners: NDArray[np.int64]
    shares: NDArray[np.float64]
    seeds: NDArray[np.int64]

    @staticmethod
    def of(
        settings: DataPart, count: int, size: tuple[int, int], random: np.random.Generator
    ) -> Draw:
        """Drawn for ``count`` images of ``size`` (H, W); the same draws whatever is switched on."""
        crop, blend = settings.crop, settings.mixup
        return Draw(
            shifts=np.floor(random.random((count, 2)) * (2 * crop + 1)).astype(np.int64) - crop,
            mirrored=random.random(count) < 0.5 * settings.flip,
            centres=random.integers((0, 0), size, (count, 2)),
            seeds=random.integers(0, 2**63, count),
            partners=random.permutation(count),
            shares=random.beta(blend, blend, count) if blend else np.ones(count),
        )


def check(settings: DataPart, shape: tuple[int, ...], scale: float) -> None:
    """Refuse what makes no sense for inputs (C, H, W) or (T, C, H, W) worth ``scale`` a level.

    Raises RequestError (E_RECIPE), CouldNotRunError (E_MISSING).
    """
    side = min(shape[-2:])
    if settings.crop >= side:
        raise RequestError(
            "E_RECIPE", f"data.crop is {settings.crop}, expected below {side}, the image's side"
        )
    if settings.cutout >= max(shape[-2:]):
        raise RequestError(
            "E_RECIPE",
            f"data.cutout is {settings.cutout}, expected below {max(shape[-2:])}, the image's side",
        )
    if settings.autoaugment:
        autoaugment.check(shape, scale)


def moved(stored: Tensor, draw: Draw, rows: NDArray[np.int64], settings: DataPart) -> Tensor:
    """Cropped, mirrored and cut out: the images at ``rows`` of a batch, (B, C, H, W) or
    (B, T, C, H, W), in stored levels; what moves in and what is cut out is level 0.

    Cropping pads each side with ``crop`` pixels and takes a window of the old size; the square of
    cutout may reach over the edge (DeVries and Taylor, arXiv 1708.04552).
    """
    images = stored.flatten(1, -3)
    if settings.crop or settings.flip:
        images = _windows(images, draw.shifts[rows], draw.mirrored[rows], settings.crop)
    if settings.autoaugment:
        images = autoaugment.autoaugmented(images, draw.seeds[rows].tolist())
    if settings.cutout:
        images = images.where(_outside(images, draw.centres[rows], settings.cutout), 0)
    return images.view(stored.shape)


def _windows(
    images: Tensor, shifts: NDArray[np.int64], mirrored: NDArray[np.bool_], pad: int
) -> Tensor:
    """Of each image (B, C, H, W) the window ``shifts`` away, perhaps mirrored."""
    count, channels, height, width = images.shape
    y = np.arange(height) + pad + shifts[:, :1]
    x = np.arange(width) + pad + shifts[:, 1:]
    x = np.where(mirrored[:, None], x[:, ::-1], x)
    places = (y[:, :, None] * (width + 2 * pad) + x[:, None, :]).reshape(count, 1, -1)
    index = torch.from_numpy(places).to(images.device).expand(-1, channels, -1)
    return F.pad(images, (pad,) * 4).flatten(2).gather(2, index).view(images.shape)


def _outside(images: Tensor, centres: NDArray[np.int64], side: int) -> Tensor:
    """False (B, 1, H, W) in the square of ``side`` around each centre."""
    corner = torch.from_numpy(centres - side // 2).to(images.device)
    inside = []
    for axis in (0, 1):
        at = torch.arange(images.shape[2 + axis], device=images.device)
        first = corner[:, axis, None]
        inside.append((at >= first) & (at < first + side))
    return ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def blended(values: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """``shares`` (B,) of ``values`` (B, ...) and the rest of ``others``: images, or classes as
    (B, K) (mixup, arXiv 1710.09412)."""
    return torch.lerp(others, values, shares.view(-1, *[1] * (values.dim() - 1)))
