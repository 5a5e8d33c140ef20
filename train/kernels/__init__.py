"""The fused CPU neuron kernel."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..slopes import Slopes, sources
from ..spiking import number

if TYPE_CHECKING:
    from ..spiking import Spiking

BUILT = find_spec("._neuron", __name__) is not None
"""Whether the extension was built for this interpreter; without it the plain path serves."""
if BUILT:
    from . import _neuron

SURROGATES = ("sigmoid", "triangle", "rectangle", "arctan", "fast_sigmoid")
"""The surrogates the kernel knows; others take the plain path."""
_SOURCES = ("current", "v", "i", "decay", "synaptic_decay")
"""The sources of `slopes.Slopes` in the kernel's order."""
_PARTS = 3
"""What of a window's end may answer: rate, v, i."""
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


def _settings(neuron: Spiking, like: Tensor, cut: bool = False) -> _neuron.Settings:
    """``like`` (T, B, ...): a population's rows; thresholds per channel are laid out as these."""
    elements = like[0].numel()
    threshold, each = neuron.threshold, None
    if isinstance(threshold, Tensor):
        each = _rows(_like(like[:1]).copy_(neuron.thresholds(like[0])))
        threshold = 1.0
    synaptic = neuron.synaptic_decay
    return _neuron.Settings(
        decay=number(neuron.decay),
        synaptic_decay=None if synaptic is None else number(synaptic),
        threshold=threshold,
        thresholds=each,
        at_threshold=neuron.compare == "ge",
        subtract=neuron.reset == "subtract",
        detach=neuron.detach_reset,
        cut=cut,
        surrogate=neuron.surrogate.name,
        width=neuron.surrogate.width,
        threads=min(torch.get_num_threads(), 1 + elements // _WORTH_A_THREAD),
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


def stream(
    current: Tensor, neuron: Spiking, windows: int = 1
) -> tuple[Tensor, Tensor, list[Slopes]]:
    """Spikes (T, B, ...), rates (windows, B, ...) and the slopes of each window; no graph."""
    current = _in_rows(current)
    spikes, rates = _like(current), _like(current[:1].expand(windows, *current.shape[1:]))
    state_parts = 2 if neuron.synaptic_decay is None else 3
    slopes: list[Slopes] = []
    for window in range(windows):
        parts = 1 if window == windows - 1 else state_parts
        slopes.append(
            {
                source: tuple(_like(current[:1])[0] for _ in range(parts))
                for source in sources(neuron, begun=window > 0)
            }
        )
    asked = [[_asked(window.get(source, ())) for source in _SOURCES] for window in slopes]
    with_ = _settings(neuron, current)
    _neuron.stream(_rows(current), _rows(spikes), _rows(rates), asked, with_)
    return spikes, rates, slopes


def _asked(parts: tuple[Tensor, ...]) -> list[_neuron.Array | None]:
    """The rows to fill, None for the parts that nobody asks for."""
    return [*(_rows(part[None]) for part in parts), *[None] * (_PARTS - len(parts))]


class _Unrolled(torch.autograd.Function):
    """The neuron over all steps; keeps the membranes before the decision for its backward."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, neuron: Spiking, cut: bool, *learned: Tensor
    ) -> Tensor:  # fmt: skip
        current = _in_rows(current)
        spikes = _like(current)
        wanted = any(ctx.needs_input_grad)
        membrane = _like(current) if wanted else None
        settings = _settings(neuron, current)
        rows = None if membrane is None else _rows(membrane)
        _neuron.forward(_rows(current), _rows(spikes), rows, settings)
        ctx.save_for_backward(membrane)
        ctx.neuron, ctx.cut, ctx.dtypes = neuron, cut, [decay.dtype for decay in learned]
        return spikes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (membrane,) = ctx.saved_tensors
        gradient = _in_rows(gradient)
        if gradient.stride()[1:] != membrane.stride()[1:]:
            gradient = _like(membrane).copy_(gradient)
        current = _like(membrane)
        to = {name: _like(membrane[:1]) for name in ctx.neuron.learned}
        decay, synaptic_decay = (
            _rows(to[name]) if name in to else None for name in ("decay", "synaptic_decay")
        )
        settings = _settings(ctx.neuron, membrane, ctx.cut)
        _neuron.backward(
            _rows(gradient), _rows(membrane), _rows(current), decay, synaptic_decay, settings
        )
        sums = [row.sum(dtype=torch.float64) for row in to.values()]
        decays = [total.to(dtype) for total, dtype in zip(sums, ctx.dtypes, strict=True)]
        return current, None, None, *decays


def unrolled(current: Tensor, neuron: Spiking, cut: bool = False) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step, or with ``cut``
    none from a step to the one before."""
    learned = [getattr(neuron, name) for name in neuron.learned]
    spikes: Tensor = _Unrolled.apply(current, neuron, cut, *learned)  # type: ignore[no-untyped-call]
    return spikes
