"""The neuron in plain torch: the readable definition, on any device and in any precision.

The step is that of `network.dynamics`; only the surrogate derivative is attached here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..network import dynamics
from ..network.contract import Contract
from ..network.dynamics import Cell, State
from .slopes import Slopes, sources

if TYPE_CHECKING:
    from .operations import LinearMap
    from .spiking import Decay, Spiking

_RESET: dict[str, Literal["value", "subtract"]] = {"zero": "value", "subtract": "subtract"}


class _Decide(torch.autograd.Function):
    """Spikes as numbers; backward, the surrogate in the place of the step's derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, neuron: Spiking) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.surrogate = neuron.surrogate
        spike: Tensor = dynamics.decide(u, threshold, neuron.compare)
        return spike.to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        u, threshold = ctx.saved_tensors
        return gradient * ctx.surrogate(u - threshold), None, None


def _cell(current: Tensor, neuron: Spiking) -> Cell:
    """The neuron with its numbers in the dtype of a current (B, ...): rounded once, as exported."""

    def number(decay: Decay) -> Tensor:
        return decay.to(current) if isinstance(decay, Tensor) else current.new_tensor(decay)

    contract = Contract(1, compare=neuron.compare, reset=_RESET[neuron.reset])
    threshold, v_reset = neuron.thresholds(current), 0.0
    if neuron.synaptic_decay is None:
        return Cell(contract, number(neuron.decay), threshold, v_reset)
    filtered = {"synaptic_decay": number(neuron.synaptic_decay), "synaptic_gain": 1.0}
    return Cell(contract, number(neuron.decay), threshold, v_reset, **filtered)


def rest(current: Tensor, neuron: Spiking) -> State:
    """What a population fed by currents like ``current`` (B, ...) keeps before its first step."""
    zero = torch.zeros_like(current)
    return State(zero) if neuron.synaptic_decay is None else State(zero, zero)


def detached(state: State) -> State:
    """The same state without its graph."""
    i = state.i.detach() if isinstance(state.i, Tensor) else state.i
    return State(state.v.detach(), i)


def step(state: State, current: Tensor, neuron: Spiking) -> tuple[State, Tensor]:
    """State and spikes (B, ...) after a step with ``current``, with a graph."""
    return _step(state, current, _cell(current, neuron), neuron)


def _step(state: State, current: Tensor, cell: Cell, neuron: Spiking) -> tuple[State, Tensor]:
    reached = cell.membrane(state, current)
    s: Tensor = _Decide.apply(reached.v, cell.threshold, neuron)  # type: ignore[no-untyped-call]
    return cell.settle(reached, s.detach() if neuron.detach_reset else s), s


def unrolled(current: Tensor, neuron: Spiking, cut: bool = False) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step.

    ``cut``: no gradient goes from a step to the one before.
    """
    cell, state = _cell(current[0], neuron), rest(current[0], neuron)
    spikes = []
    for c in current:
        state, s = _step(detached(state) if cut else state, c, cell, neuron)
        spikes.append(s)
    return torch.stack(spikes)


def recurrent(current: Tensor, neuron: Spiking, weights: LinearMap, cut: bool = False) -> Tensor:
    """As `unrolled`, with the spikes of the last step mapped by ``weights`` added to a current."""
    cell, state = _cell(current[0], neuron), rest(current[0], neuron)
    s = torch.zeros_like(current[0])
    spikes = []
    for c in current:
        if cut:
            state, s = detached(state), s.detach()
        state, s = _step(state, c + weights(s), cell, neuron)
        spikes.append(s)
    return torch.stack(spikes)


class Tally:
    """A population on its way through a window of steps, without a graph: what it fired, and how
    its rate and the state it leaves answer to the sources of `slopes.sources`.

    With (dv, di) the answer of the state, du = decay*dv + ... is the step itself without its
    decision, for the step is linear in state and current; dr = mean of h*du; then dv = dv/du * du.
    Over one window from rest, dr for the current is the eligibility kappa of rate-based
    backpropagation (arXiv 2410.11488).
    """

    def __init__(self, state: State, neuron: Spiking, to: Iterable[str]) -> None:
        self.state, self._neuron = state, neuron
        self._cell = _cell(state.v, neuron)
        self._steps = 0
        self._fired = torch.zeros_like(state.v)
        begun = {"v": State(1.0, 0.0), "i": State(0.0, 1.0)}
        names = tuple(to)
        self._moved = {name: begun.get(name, State()) for name in names}
        self._fires: dict[str, Any] = dict.fromkeys(names, 0.0)

    @torch.no_grad()
    def step(self, current: Tensor) -> Tensor:
        """Spikes (B, ...) of a step with ``current`` (B, ...)."""
        before, cell = self.state, self._cell
        reached = cell.membrane(before, current)
        s: Tensor = cell.decide(reached.v).to(current.dtype)
        h = self._neuron.surrogate(reached.v - cell.threshold)
        passed = _through_reset(reached.v, s, h, cell.threshold, self._neuron)
        for source, last in self._moved.items():
            moved = cell.membrane(last, 1.0 if source == "current" else 0.0)
            if source == "decay":
                moved = State(moved.v + before.v, moved.i)
            if source == "synaptic_decay":
                moved = State(moved.v + before.i, moved.i + before.i)
            self._fires[source] += h * moved.v
            self._moved[source] = State(passed * moved.v, moved.i)
        self.state = cell.settle(reached, s)
        self._fired += s
        self._steps += 1
        return s

    @property
    def rate(self) -> Tensor:
        """Spikes per step, (B, ...)."""
        return self._fired / self._steps

    @property
    def slopes(self) -> Slopes:
        """How the window's end answers to each source."""
        cuba = self._neuron.synaptic_decay is not None
        return {
            source: (fires / self._steps, moved.v, *([moved.i] if cuba else []))
            for (source, fires), moved in zip(
                self._fires.items(), self._moved.values(), strict=True
            )
        }


def stream(
    current: Tensor, neuron: Spiking, windows: int = 1
) -> tuple[Tensor, Tensor, list[Slopes]]:
    """Spikes (T, B, ...), rates (windows, B, ...) and the slopes of each window, of currents
    (T, B, ...); no graph."""
    spikes: list[Tensor] = []
    rates: list[Tensor] = []
    slopes: list[Slopes] = []
    state = rest(current[0], neuron)
    for window in torch.split(current, len(current) // windows):
        # The first window starts at rest, so nobody asks what its start would have changed.
        tally = Tally(state, neuron, sources(neuron, begun=bool(rates)))
        spikes += [tally.step(c) for c in window]
        rates.append(tally.rate)
        slopes.append(tally.slopes)
        state = tally.state
    return torch.stack(spikes), torch.stack(rates), slopes


def _through_reset(
    u: Tensor, s: Tensor, h: Tensor, threshold: Tensor, neuron: Spiking
) -> Tensor | float:
    """dv/du: what the membrane after the reset owes to the membrane before it."""
    if neuron.reset == "subtract":
        return 1.0 if neuron.detach_reset else 1.0 - threshold * h
    return 1.0 - s if neuron.detach_reset else 1.0 - s - u * h
