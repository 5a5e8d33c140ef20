"""Where a training went out of bounds: the first value of a pass that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .carried import Carried
from .frames import in_time, through
from .recipe import NormForm
from .rules.bptt import Unrolled


def culprit(model: nn.Module, frames: Tensor, steps: int, norm: NormForm) -> str:
    """A clause that names the first place where a pass over ``frames`` is not finite.

    Looked at in this order: weights, inputs, what each layer hands on in a pass as training makes
    it, the gradients that lie in the module from the last layer to the first. A spike is never
    NaN, so a current that is may show in a gradient alone.
    """
    for name, value in model.named_parameters():
        if not _finite(value):
            return f"the parameter '{name}' is no longer finite"
    if not _finite(frames):
        return "the input holds values that are not finite"
    broken: list[str] = []
    with _noted(model, broken), _buffers_kept(model), torch.no_grad():
        through(model, in_time(frames, steps), Unrolled(steps, norm=norm))
    if broken:
        return f"the output of layer '{broken[0]}' is not finite"
    for name, value in reversed(list(model.named_parameters())):
        if value.grad is not None and not _finite(value.grad):
            return f"every layer's output is finite, but the gradient of '{name}' is not"
    return "the loss is not finite, though every layer's output and gradient is"


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


@contextmanager
def _noted(model: nn.Module, broken: list[str]) -> Iterator[None]:
    """The names of layers whose output is not finite, in the order they are called."""

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            value = output.value if isinstance(output, Carried) else output
            if isinstance(value, Tensor) and not _finite(value):
                broken.append(name)

        return hook

    hooks = [
        module.register_forward_hook(look(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Running statistics as they were."""
    kept = {name: value.clone() for name, value in model.named_buffers()}
    try:
        yield
    finally:
        for name, value in model.named_buffers():
            value.copy_(kept[name])
