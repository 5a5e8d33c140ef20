"""Several processes that train one network: who is who, and what they add up.

A launcher (torchrun) starts the processes and tells each its place in the environment. All of them
run the same code on their share of every batch; only the first writes. Gradients are averaged once
per update, after the last backward pass, in one flat buffer: a rule may go backward several times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import CouldNotRunError, RequestError


@dataclass(frozen=True)
class Place:
    """A process among ``world``; ``rank`` 0 is the first."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0


def place() -> Place:
    """Where this process stands; alone unless `joined` or the caller brought others in."""
    if dist.is_available() and dist.is_initialized():
        return Place(dist.get_rank(), dist.get_world_size())
    return Place()


def launched() -> Place:
    """Where a launcher's environment puts this process; nothing is started."""
    return Place(_number("RANK", 0), _number("WORLD_SIZE", 1))


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, str(otherwise))
    if not text.isdecimal():
        raise RequestError("E_LAUNCH", f"{name} is '{text}' in the environment, expected a number")
    return int(text)


def local_device(device: torch.device) -> torch.device:
    """``device``, or where it is ``cuda`` without a number, the GPU of this process."""
    if device == torch.device("cuda"):
        return torch.device("cuda", _number("LOCAL_RANK", 0))
    return device


@contextmanager
def joined(device: torch.device) -> Iterator[Place]:
    """Meet the processes that a launcher started, by NCCL on GPUs, else by gloo; leave at the end.

    Raises CouldNotRunError (E_LAUNCH) when they cannot be met.
    """
    if launched().world == 1 or place().world > 1:
        yield place()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(backend, device_id=device if device.type == "cuda" else None)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CouldNotRunError(
            "E_LAUNCH", f"the processes of this training cannot meet by {backend}: {reason}"
        ) from error
    try:
        yield place()
    finally:
        dist.destroy_process_group()


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs the block, then the others: a file is fetched once."""
    here = place()
    if here.world > 1 and not here.first:
        dist.barrier()
    yield
    if here.world > 1 and here.first:
        dist.barrier()


def check_shares(batch: int, world: int) -> None:
    """Raises RequestError (E_RECIPE) when a batch cannot be cut into equal shares."""
    if batch % world:
        raise RequestError(
            "E_RECIPE",
            f"a batch holds {batch} images, expected a multiple of the {world} processes that "
            "share it",
        )


def share_weights(model: nn.Module) -> None:
    """Every process takes the first one's parameters and buffers."""
    if place().world > 1:
        for value in model.state_dict().values():
            sent = value.detach().contiguous()
            dist.broadcast(sent, 0)
            value.copy_(sent)


def average_gradients(model: nn.Module) -> None:
    """Every gradient becomes its mean over the processes: that of the loss of the whole batch."""
    here = place()
    if here.world == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= here.world
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def summed(numbers: Sequence[float], device: torch.device) -> list[float]:
    """The sums of some numbers over the processes, the same bits in each."""
    if place().world == 1:
        return list(numbers)
    together = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(together)
    found: list[float] = together.tolist()
    return found


def added(values: Tensor) -> Tensor:
    """The sum of a tensor over the processes."""
    total = values.clone()
    dist.all_reduce(total)
    return total
