"""The fused CPU neuron kernel."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..spiking import Spiking

BUILT = find_spec("._neuron", __name__) is not None
"""Whether the extension was built for this interpreter; without it the plain path serves."""
if BUILT:
    from . import _neuron

SURROGATES = ("sigmoid", "triangle")
"""The surrogates the kernel knows; others take the plain path."""
_WORTH_A_THREAD = 1 << 15
"""Elements of one step below which a second thread costs more than it saves."""


def takes(current: Tensor, neuron: Spiking) -> bool:
    """Whether the kernel is built here and serves these currents."""
    return (
        BUILT
        and current.device.type == "cpu"
        and current.dtype == torch.float32
        and neuron.surrogate.name in SURROGATES
    )


def _settings(neuron: Spiking, elements: int) -> _neuron.Settings:
    threads = min(torch.get_num_threads(), 1 + elements // _WORTH_A_THREAD)
    return _neuron.Settings(
        decay=neuron.decay,
        threshold=neuron.threshold,
        at_threshold=neuron.compare == "ge",
        subtract=neuron.reset == "subtract",
        detach=neuron.detach_reset,
        surrogate=neuron.surrogate.name,
        width=neuron.surrogate.width,
        threads=threads,
    )


def _in_rows(x: Tensor) -> Tensor:
    """``x`` (T, B, ...) itself if each step is a piece of memory without gaps, else a copy.

    Channels-last steps and a static current shown at every step (stride 0) stay as they are.
    """
    step = x[0]
    dense = step.is_contiguous() or (
        step.dim() == 4 and step.is_contiguous(memory_format=torch.channels_last)
    )
    if dense and (x.shape[0] == 1 or x.stride(0) in (0, step.numel())):
        return x
    return x.contiguous()


def _like(x: Tensor) -> Tensor:
    """An empty (T, B, ...) whose steps lie in memory as those of ``x``."""
    return torch.empty_strided(x.shape, (x[0].numel(), *x.stride()[1:]), dtype=x.dtype)


def _rows(x: Tensor) -> Any:
    """(T, N) in the order of memory, as numpy sees it; writes go through to ``x``."""
    return x.detach().as_strided((x.shape[0], x[0].numel()), (x.stride(0), 1)).numpy()


def stream(current: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (T, B, ...), rate and eligibility (B, ...); see `neuron.stream`."""
    current = _in_rows(current)
    spikes = _like(current)
    rate, kappa = _like(current[:1]), _like(current[:1])
    settings = _settings(neuron, current[0].numel())
    _neuron.stream(_rows(current), _rows(spikes), _rows(rate), _rows(kappa), settings)
    return spikes, rate[0], kappa[0]


class _Unrolled(torch.autograd.Function):
    """The neuron over all steps; keeps the membranes before the decision for its backward."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, neuron: Spiking) -> Tensor:
        current = _in_rows(current)
        spikes = _like(current)
        membrane = _like(current) if ctx.needs_input_grad[0] else None
        settings = _settings(neuron, current[0].numel())
        _neuron.forward(
            _rows(current), _rows(spikes), None if membrane is None else _rows(membrane), settings
        )
        ctx.save_for_backward(membrane)
        ctx.neuron = neuron
        return spikes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (membrane,) = ctx.saved_tensors
        gradient = _in_rows(gradient)
        if gradient.stride()[1:] != membrane.stride()[1:]:
            gradient = _like(membrane).copy_(gradient)
        current = _like(membrane)
        settings = _settings(ctx.neuron, membrane[0].numel())
        _neuron.backward(_rows(gradient), _rows(membrane), _rows(current), settings)
        return current, None


def unrolled(current: Tensor, neuron: Spiking) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step."""
    spikes: Tensor = _Unrolled.apply(current, neuron)  # type: ignore[no-untyped-call]
    return spikes
