"""How frames enter a module and how its output leaves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import RequestError
from .carried import Carried, Treatment, V
from .protocol import Watch


def in_time(frames: Tensor, steps: int) -> Tensor:
    """Frames as (1 or T, B, ...): 1 where the same frame is shown at every step.

    ``frames``: (B, F) or (B, C, H, W), or the same with T in front. Raises RequestError (E_INPUT).
    """
    if steps < 1:
        raise RequestError("E_INPUT", f"the number of steps is {steps}; expected 1 or more")
    if frames.dim() in (2, 4):
        return frames[None]
    if frames.dim() not in (3, 5) or frames.shape[0] != steps:
        raise RequestError(
            "E_INPUT",
            f"the frames have shape {list(frames.shape)}; expected (B, F) or (B, C, H, W), or the "
            f"same with T = {steps} in front",
        )
    return frames


def scaled(stored: Tensor, scale: float) -> Tensor:
    """Stored levels (B, C, H, W) or (B, T, C, H, W) as a learning rule takes them: T in front."""
    frames = stored.float() * scale
    return frames.transpose(0, 1) if frames.dim() == 5 else frames


def folded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A stateless function over (T, B, ...), time folded into the batch."""
    return unfolded(function(x.flatten(0, 1)), x.shape[0])


def unfolded(x: Tensor, steps: int) -> Tensor:
    """(T * B, ...) to (T, B, ...), a view in any memory format."""
    size = x.shape[0] // steps
    return x.view(steps, size, *x.shape[1:])


def mean_in_time(x: Tensor) -> Tensor:
    """(1 or T, B, ...) to (B, ...), in the memory format of a step (a plain mean would lose it)."""
    if x.shape[0] == 1:
        return x[0]
    if x.dim() == 5 and x[0].is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 1, 3, 4, 2).mean(0).permute(0, 3, 1, 2)
    return x.mean(0)


def gradient_times(x: Tensor, factor: float) -> Tensor:
    """The same values, their gradient times ``factor``."""
    return x.detach() + (x - x.detach()) * factor


def watching(watch: Watch | None, factor: float) -> Watch | None:
    """``watch``, the gradient of what it sees times ``factor``."""
    if watch is None or factor == 1.0:
        return watch
    return lambda module, seen: watch(module, gradient_times(seen, factor))


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate (1 or T, B, ...) along an axis that counts from B."""
    steps = max(part.shape[0] for part in parts)
    shown = [part.expand(steps, *part.shape[1:]) for part in parts]
    return torch.cat(shown, axis + 1 if axis >= 0 else axis)


def through(model: nn.Module, value: V, treatment: Treatment[V]) -> V:
    """Call a module on a carried value; RequestError (E_MODEL) when something else comes out."""
    output = model(Carried(value, treatment))
    if not isinstance(output, Carried):
        raise RequestError(
            "E_MODEL",
            f"{type(model).__name__} returned a {type(output).__name__}; expected the value that "
            "flowed through it",
        )
    found: V = output.value
    return found
