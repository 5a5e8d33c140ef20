"""The neurons that stand in a user's nn.Module, alone or recurrent, and sum pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RequestError
from ..network.contract import Compare
from .carried import Carried, V
from .decay import learned, logit
from .operations import Affine
from .protocol import Surrogate
from .spiking import Spiking, SpikingReset
from .surrogates.sigmoid import Sigmoid


def _carried(module: nn.Module, x: Carried[V]) -> Carried[V]:
    if not isinstance(x, Carried):
        raise RequestError(
            "E_MODEL",
            f"{type(module).__name__} received a {type(x).__name__}; a spiking module is called "
            "through a learning rule, e.g. next(Rate()(model, frames, steps=4)).mean",
        )
    return x


class _Neurons(nn.Module):
    """What LIF, IF and CubaLIF share. Stateless: membranes live in the call."""

    threshold: Tensor | float
    decay_logit: nn.Parameter | None
    synaptic_decay_logit: nn.Parameter | None

    def __init__(
        self,
        decays: tuple[float, float | None],
        threshold: float | Sequence[float],
        reset: SpikingReset,
        compare: Compare,
        detach_reset: bool,
        surrogate: Surrogate | None,
        learn_decay: bool,
    ) -> None:
        super().__init__()
        self.surrogate = surrogate or Sigmoid()
        self._decay, self._synaptic_decay = decays
        self._rest = (reset, compare, detach_reset)
        each = (threshold,) if isinstance(threshold, int | float) else tuple(threshold)
        if not each:
            raise RequestError("E_NEURON", "there is no threshold; expected one, or one a channel")
        for one in each:  # refuses a value that no neuron can have, before there is a parameter
            Spiking(self._decay, one, *self._rest, self.surrogate, self._synaptic_decay)
        if isinstance(threshold, int | float):
            self.threshold = float(threshold)
        else:
            self.register_buffer("threshold", torch.tensor(each, dtype=torch.get_default_dtype()))
        learned = (decay if learn_decay else None for decay in decays)
        self.decay_logit, self.synaptic_decay_logit = (
            None if decay is None else logit(decay) for decay in learned
        )

    @property
    def spiking(self) -> Spiking:
        """The parameters as they are now; decays that are learned carry their graph."""
        own, synaptic = self.decay_logit, self.synaptic_decay_logit
        return Spiking(
            self._decay if own is None else learned(own),
            self.threshold,
            *self._rest,
            self.surrogate,
            self._synaptic_decay if synaptic is None else learned(synaptic),
        )

    def forward(self, x: Carried[V]) -> Carried[V]:
        """Input currents to spikes, both (B, ...) carried through time."""
        return _carried(self, x).fire(self)

    def extra_repr(self) -> str:
        """The parameters."""
        parts = vars(self.spiking).items()
        return ", ".join(f"{name}={_shown(value)}" for name, value in parts if value is not None)


def _shown(value: object) -> object:
    return value.tolist() if isinstance(value, Tensor) else value


class LIF(_Neurons):
    """Leaky integrate-and-fire neurons: u = decay*v + current; fire at the threshold; reset.

    ``threshold``: one, or one per channel of (B, C, ...), kept in the state then. ``reset`` zero or
    subtract; ``compare`` gt fires at u > threshold, ge at u >= threshold; ``detach_reset`` keeps
    the gradient out of the reset; ``surrogate`` stands for the spike's derivative; ``learn_decay``
    learns one decay from ``decay`` on, a multiple of 1/4096. Stateless: the membrane lives in the
    call. Raises RequestError (E_NEURON).
    """

    def __init__(
        self,
        decay: float = 0.25,
        threshold: float | Sequence[float] = 1.0,
        reset: SpikingReset = "zero",
        compare: Compare = "gt",
        detach_reset: bool = True,
        surrogate: Surrogate | None = None,
        learn_decay: bool = False,
    ) -> None:
        if decay == 1.0:
            raise RequestError("E_NEURON", "the decay of LIF is 1; neurons without a leak are IF")
        super().__init__(
            (decay, None), threshold, reset, compare, detach_reset, surrogate, learn_decay
        )


class IF(_Neurons):
    """Integrate-and-fire neurons: as `LIF` without the leak (decay 1)."""

    def __init__(
        self,
        threshold: float | Sequence[float] = 1.0,
        reset: SpikingReset = "zero",
        compare: Compare = "gt",
        detach_reset: bool = True,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__((1.0, None), threshold, reset, compare, detach_reset, surrogate, False)


class CubaLIF(_Neurons):
    """As `LIF`, driven by a synaptic current i = synaptic_decay*i + current of the same step.

    ``learn_decay`` learns both decays.
    """

    def __init__(
        self,
        synaptic_decay: float = 0.25,
        decay: float = 0.25,
        threshold: float | Sequence[float] = 1.0,
        reset: SpikingReset = "zero",
        compare: Compare = "gt",
        detach_reset: bool = True,
        surrogate: Surrogate | None = None,
        learn_decay: bool = False,
    ) -> None:
        super().__init__(
            (decay, synaptic_decay), threshold, reset, compare, detach_reset, surrogate, learn_decay
        )


class Recurrent(nn.Module):
    """Neurons fed by their own spikes of the last step too: c_t = x_t + W s_{t-1} + b, s_{-1} = 0.

    ``weights`` is a linear map of N values to N; its bias counts from the first step on. The layer
    is ``neurons``' in every listing. Raises RequestError (E_MODEL).
    """

    def __init__(self, neurons: LIF | IF | CubaLIF, weights: nn.Linear) -> None:
        super().__init__()
        if weights.in_features != weights.out_features:
            raise RequestError(
                "E_MODEL",
                f"the recurrent weights map {weights.in_features} values to "
                f"{weights.out_features}; expected as many out as in",
            )
        self.neurons, self.weights = neurons, weights

    def forward(self, x: Carried[V]) -> Carried[V]:
        """Input currents to spikes, both (B, N) carried through time."""
        if _carried(self, x).shape[1:] != (self.weights.in_features,):
            raise RequestError(
                "E_MODEL",
                f"a recurrent layer received currents of shape {list(x.shape)}; expected (B, "
                f"{self.weights.in_features})",
            )
        return x.recur(self.neurons, Affine(self.weights.weight, self.weights.bias))


class SumPool2d(nn.Module):
    """Sum over windows of (B, C, H, W): pooling that keeps spikes whole numbers."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H', W')."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, divisor_override=1)

    def extra_repr(self) -> str:
        """The windows."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


def neurons(model: nn.Module) -> dict[str, LIF | IF | CubaLIF]:
    """The neuron modules of a model by path name, in the order they were registered."""
    found = model.named_modules()
    return {name: module for name, module in found if isinstance(module, LIF | IF | CubaLIF)}
