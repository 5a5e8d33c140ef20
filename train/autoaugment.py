"""AutoAugment (arXiv 1805.09501) by torchvision's hand; the extra ``augment`` brings it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import CouldNotRunError, RequestError

_LARGE = 64
"""Images with a longer side get the policies found on ImageNet, others those found on CIFAR-10."""


def check(shape: tuple[int, ...], scale: float) -> None:
    """Refuse inputs that the policies do not fit.

    Raises RequestError (E_RECIPE), CouldNotRunError (E_MISSING) without the extra.
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or scale != 1 / 256:
        raise RequestError(
            "E_RECIPE",
            f"data.autoaugment is true for inputs of shape {list(shape)} worth {scale} a level; "
            "expected still images of 256 levels, grey or red, green and blue",
        )
    _policies(shape)


def autoaugmented(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Images uint8 (B, C, H, W), each after one of the policies, drawn by its seed.

    One by one, as the library draws for all that it is given at once. The caller's random state is
    left as it was.
    """
    policies = _policies(tuple(images.shape[1:]))
    done = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images.cpu(), seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            done.append(policies(image))
    return torch.stack(done).to(images.device)


def _policies(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    try:
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise CouldNotRunError(
            "E_MISSING",
            "data.autoaugment needs torchvision in the build that belongs to the installed torch "
            f"{torch.__version__} ({str(error).splitlines()[0]}): install snnpipe[augment]",
        ) from error
    found = AutoAugmentPolicy.IMAGENET if max(shape[1:]) > _LARGE else AutoAugmentPolicy.CIFAR10
    policies: Callable[[Tensor], Tensor] = AutoAugment(found)
    return policies
