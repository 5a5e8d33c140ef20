"""The neurons that stand in a user's nn.Module, alone or recurrent, and sum pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RequestError
from ..network.contract import Compare
from .carried import Carried, V
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
    """What LIF and IF share. Stateless: the membrane lives in the call."""

    spiking: Spiking

    def forward(self, x: Carried[V]) -> Carried[V]:
        """Input currents to spikes, both (B, ...) carried through time."""
        return _carried(self, x).fire(self)

    def extra_repr(self) -> str:
        """The parameters."""
        return str(self.spiking)


class LIF(_Neurons):
    """Leaky integrate-and-fire neurons: u = decay*v + current; fire at the threshold; reset.

    ``reset`` zero or subtract; ``compare`` gt fires at u > threshold, ge at u >= threshold;
    ``detach_reset`` keeps the gradient out of the reset; ``surrogate`` stands for the spike's
    derivative. Stateless: the membrane lives in the call. Raises RequestError (E_NEURON).
    """

    def __init__(
        self,
        decay: float = 0.25,
        threshold: float = 1.0,
        reset: SpikingReset = "zero",
        compare: Compare = "gt",
        detach_reset: bool = True,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        if decay == 1.0:
            raise RequestError("E_NEURON", "the decay of LIF is 1; neurons without a leak are IF")
        self.spiking = Spiking(
            decay, threshold, reset, compare, detach_reset, surrogate or Sigmoid()
        )


class IF(_Neurons):
    """Integrate-and-fire neurons: as `LIF` without the leak (decay 1)."""

    def __init__(
        self,
        threshold: float = 1.0,
        reset: SpikingReset = "zero",
        compare: Compare = "gt",
        detach_reset: bool = True,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.spiking = Spiking(1.0, threshold, reset, compare, detach_reset, surrogate or Sigmoid())


class Recurrent(nn.Module):
    """Neurons fed by their own spikes of the last step too: c_t = x_t + W s_{t-1} + b, s_{-1} = 0.

    ``weights`` is a linear map of N values to N; its bias counts from the first step on. The layer
    is ``neurons``' in every listing. Raises RequestError (E_MODEL).
    """

    def __init__(self, neurons: LIF | IF, weights: nn.Linear) -> None:
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


def neurons(model: nn.Module) -> dict[str, LIF | IF]:
    """The neuron modules of a model by path name, in the order they were registered."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LIF | IF)}
