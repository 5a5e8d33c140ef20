"""What a training computes in: float32, or bfloat16 where torch's autocast takes it.

Evaluation and witness always run in float32: spikes that are to be found again elsewhere, one for
one, are those of float32. A network trained in bfloat16 is a float32 network with other weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .protocol import Part
from .recipe import TrainPart


def computed(parts: Iterator[Part], settings: TrainPart, device: torch.device) -> Iterator[Part]:
    """The parts of a pass, each computed in the recipe's precision; outputs no less than float32.

    Whoever goes backward from a part stands outside: gradients have the dtypes of the forward pass.
    """
    if settings.precision == "float32":
        yield from parts
        return
    while True:
        with torch.autocast(device.type, torch.bfloat16):
            part = next(parts, None)
        if part is None:
            return
        yield Part(part.outputs.float(), part.share)


@contextmanager
def true_float32() -> Iterator[None]:
    """On a GPU, convolutions of float32 in float32: cuDNN would take 10 bits of each factor (TF32),
    and spikes would be others than the CPU's."""
    now = torch.backends.cudnn
    with torch.backends.cudnn.flags(now.enabled, now.benchmark, allow_tf32=False):
        yield


def in_words(settings: TrainPart) -> str:
    """For histories and reports."""
    if settings.precision == "float32":
        return "trained and evaluated in float32"
    return "trained in bf16, evaluated in float32"
