"""Fine-tuning in the whole weights of a chip: straight through the rounding.

A layer's weights are ``n * spacing`` with n of few bits, its thresholds and biases are multiples of
its weight unit, ``spacing / step`` (`network.scales`). Forward sees these numbers, the optimiser
moves float weights behind them, and the gradient passes the rounding as if it were not there, but
for weights beyond the largest n (Bengio et al., arXiv 1308.3432; Esser et al., arXiv 1902.08153,
eq. 5, with a spacing that stays). What is kept in the end are the rounded numbers themselves, of
which `network.scales` finds the same whole ones again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import RequestError
from ..network.dynamics import WEIGHT_SHIFT
from ..network.loihi import (
    BIAS_EXPONENT_MAX,
    MANTISSA_MAX,
    NEURONS_PER_CORE,
    SUM_MAX,
    THRESHOLD_MAX,
    THRESHOLDS_PER_CORE,
)
from ..network.scales import (
    channel_scales,
    least_squares_scale,
    step_of,
    threshold_units,
)
from ..network.shared_scales import core_groups, shared
from .build import build
from .checkpoint import load_run
from .coding import seen
from .folding import Group, fold_norms, groups
from .recipe import Recipe
from .spiking import Decay, Spiking, number
from .teacher import record

Wide = NDArray[np.float64]

ROOM = 0.5
"""The share of a chip's ranges that the first weights may fill; they move."""
SMALLEST = 2.0**-40
"""What stands for a sum of nothing."""
_SAME = {
    "data": ("name", "coding"),
    "model": ("name", "channels", "strides", "hidden", "width", "stem"),
    "neuron": (
        "name", "decay", "synaptic_decay", "learn_decay", "threshold", "reset", "compare",
    ),
}  # fmt: skip
"""In what a recipe must agree with that of the run which it starts from."""


class _Through(torch.autograd.Function):
    """unit * clip(rint(x / unit), low, high), computed in float64; the gradient is that of clip."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, unit: Tensor, low: Tensor, high: int) -> Tensor:
        whole = (x.double() / unit).round()
        ctx.save_for_backward((whole >= low) & (whole <= high))
        kept = whole.clamp(low, torch.full_like(low, high)) + 0.0  # no -0.0, whose bytes differ
        rounded: Tensor = (kept * unit).to(x.dtype)
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


class WholeWeights(nn.Module):
    """A parametrisation: a weight (C, ...) as multiples of ``spacing``, () or (C,), of ``bits``.

    A matrix without a positive weight is an inhibitory one to the chip and lacks the lowest.
    """

    spacing: Tensor

    def __init__(self, spacing: Wide, bits: int) -> None:
        super().__init__()
        self.register_buffer("spacing", torch.tensor(spacing, dtype=torch.float64))
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the chip has, in float units."""
        unit = self.spacing.view(-1, *[1] * (weight.dim() - 1))
        half = 2 ** (self.bits - 1)
        low = torch.where((weight.detach() > unit / 2).any(), -half, 1 - half)
        rounded: Tensor = _Through.apply(weight, unit, low, half - 1)  # type: ignore[no-untyped-call]
        return rounded


class WholeBiases(nn.Module):
    """A parametrisation: a bias (C,) as multiples of ``unit``, () or (C,): so many as a mantissa
    and an exponent hold, shared by ``share`` maps."""

    unit: Tensor

    def __init__(self, unit: Wide, share: int) -> None:
        super().__init__()
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float64))
        self.share = share

    def forward(self, bias: Tensor) -> Tensor:
        """The bias that the chip has, in float units."""
        largest = MANTISSA_MAX // self.share
        whole = (bias.detach().double() / self.unit).round().abs().max()
        # A mantissa of 13 bits at exponent 6 counts weight units, at 7 two of them.
        unit = torch.where(whole > largest, 2 * self.unit, self.unit)
        low = torch.tensor(-largest, device=bias.device)
        rounded: Tensor = _Through.apply(bias, unit, low, largest)  # type: ignore[no-untyped-call]
        return rounded


@dataclass(frozen=True)
class Rounding:
    """``spacing`` of the weights of a group, () or (C,), and ``unit`` of its biases."""

    spacing: Wide
    unit: Wide


def begin(recipe: Recipe) -> nn.Module:
    """The module that a recipe's training begins with: freshly drawn, or that of ``start`` with
    its normalisation folded and its weights rounded whenever they are looked at.

    Raises RequestError (E_START) when the start is no finished run of such a network, (E_QUANTISE)
    naming what cannot be trained in whole weights, and as `build`.
    """
    model = build(recipe)
    if recipe.quantise.bits:
        _take_over(model, recipe)
        attach(model, recipe)
    return model


def _take_over(model: nn.Module, recipe: Recipe) -> None:
    """Fill a module with the weights of the run it starts from."""
    run = Path(recipe.quantise.start)
    origin(recipe)  # refuses what is no finished run
    trained, own = load_run(run)
    for section, fields in _SAME.items():
        for field in fields:
            theirs, ours = (getattr(getattr(of, section), field) for of in (own, recipe))
            if theirs != ours:
                raise RequestError(
                    "E_START",
                    f"{run}: {section}.{field} of this run is {theirs}, of the recipe that starts "
                    f"from it {ours}; expected the same",
                )
    data = seen(recipe)
    fold_norms(trained, data.shape, data.coding == "direct")
    found = trained.state_dict()
    # A start in whole weights has thresholds of its own units; the recipe's are begun with.
    kept = {k: v if k.endswith(".threshold") else found[k] for k, v in model.state_dict().items()}
    model.load_state_dict(kept)


def origin(recipe: Recipe) -> dict[str, Any]:
    """What a history says of the run that whole weights start from, empty for floats; E_START as
    `begin`. To be asked before training: the run may be gone when it ends."""
    if not recipe.quantise.bits:
        return {}
    try:
        return record(Path(recipe.quantise.start))
    except RequestError as error:
        raise RequestError(
            "E_START", error.message.replace("loss.teacher", "quantise.start")
        ) from error


def attach(model: nn.Module, recipe: Recipe) -> None:
    """Round the weights, biases and thresholds of all that the chip computes, from here on.

    ``model`` is in the form of `folding.whole_form`. Raises RequestError (E_QUANTISE).
    """
    bits, data = recipe.quantise.bits, seen(recipe)
    for group in groups(model, data.shape, data.coding == "direct"):
        if group.host:
            continue
        rounding = _rounding(model, group, recipe)
        for name in group.maps:
            linear: Any = model.get_submodule(name)
            weights = WholeWeights(rounding.spacing, bits)
            parametrize.register_parametrization(linear, "weight", weights)
            if linear.bias is not None:
                biases = WholeBiases(rounding.unit, len(group.maps))
                parametrize.register_parametrization(linear, "bias", biases)
        if group.population:
            neurons: Any = model.get_submodule(group.population)
            scale = step_of(bits) / rounding.spacing
            threshold = neurons.threshold.double().numpy()
            units = np.broadcast_to(threshold_units(threshold, scale) / scale, threshold.shape)
            neurons.threshold.copy_(torch.from_numpy(units.copy()))


def _rounding(model: nn.Module, group: Group, recipe: Recipe) -> Rounding:
    """Scales of a group by its weights as they are now, with room for them to grow."""
    maps: list[Any] = [model.get_submodule(name) for name in group.maps]
    weights = [one.weight.detach().numpy() for one in maps]
    bits, step = recipe.quantise.bits, step_of(recipe.quantise.bits)
    biases = [abs(one.bias.detach().numpy()) for one in maps if one.bias is not None]
    if not group.population:
        # A dense read-out's sums can be shifted down by the step of its weights; its biases cannot,
        # and are rounded so coarsely that they stay whole.
        shifted = step if all(isinstance(one, nn.Linear) for one in maps) else 1
        cap = shifted / group.taps * _readout_cap(weights, biases, recipe.train.steps)
        spacing = np.asarray(step / least_squares_scale(weights, bits, cap), np.float64)
        return Rounding(spacing, spacing / min(step, 8))
    neurons: Any = model.get_submodule(group.population)
    caps = _caps(weights, biases, neurons.spiking, recipe.train.steps) / group.taps
    if recipe.quantise.thresholds == "channel":
        wanted = channel_scales(weights, bits, caps)
        cores = core_groups(group.shape, NEURONS_PER_CORE)
        scale = shared(wanted, caps, bits, cores, THRESHOLDS_PER_CORE)
    else:
        scale = np.asarray(least_squares_scale(weights, bits, float(caps.min())))
    return Rounding(step / scale, 1 / scale)


def _reaches(weights: list[Any]) -> tuple[Wide, Wide]:
    """The sums (C,) of positive and of negative weights, as magnitudes: spikes bring no more."""
    rows = np.concatenate([w.astype(np.float64).reshape(len(w), -1) for w in weights], axis=1)
    return rows.clip(min=0).sum(axis=1), -rows.clip(max=0).sum(axis=1)


def _readout_cap(weights: list[Any], biases: list[Any], steps: int) -> float:
    """The largest scale at which outputs stay in range over all steps, with `ROOM`."""
    largest = np.maximum(*_reaches(weights)) + sum(biases)
    return ROOM * SUM_MAX / (steps * max(float(largest.max()), SMALLEST))


def _caps(weights: list[Any], biases: list[Any], neurons: Spiking, steps: int) -> Wide:
    """The largest scales (C,) at which a chip's ranges hold a layer, with `ROOM`."""
    positive, negative = _reaches(weights)
    # Of a membrane only the lower end matters: at the upper it fires.
    current = _memory(neurons.synaptic_decay or 0.0, steps)
    reach = current * np.maximum(positive, negative * _memory(neurons.decay, steps))
    field = MANTISSA_MAX * 2 ** (BIAS_EXPONENT_MAX - WEIGHT_SHIFT)
    threshold = neurons.thresholds(torch.empty(1, len(reach))).numpy()
    needed = np.maximum(np.maximum(reach / SUM_MAX, sum(biases) / field), threshold / THRESHOLD_MAX)
    return np.asarray(ROOM / needed, np.float64)


def _memory(decay: Decay, steps: int) -> float:
    """How many steps' input a state can hold together."""
    kept = number(decay)
    return float(steps) if kept == 1.0 else min(float(steps), 1.0 / (1.0 - kept))


def _rounded(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and parametrize.is_parametrized(module):
            yield name, module


def settle(model: nn.Module) -> None:
    """Put the rounded weights and biases in the place of what they were rounded from."""
    for _, module in list(_rounded(model)):
        for name in list(module.parametrizations):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def account(recipe: Recipe, model: nn.Module, start: dict[str, Any]) -> dict[str, Any]:
    """For the history: bits, where it started, and of each rounded matrix how many of its weights
    are 0 and how many stand at either end. ``model`` is not settled yet; ``start``: its `origin`.
    """
    if not recipe.quantise.bits:
        return {}
    layers = {}
    for name, module in _rounded(model):
        rounding = module.parametrizations.weight[0]
        unit = rounding.spacing.view(-1, *[1] * (module.weight.dim() - 1))
        whole = module.weight.detach().double() / unit
        half = 2 ** (rounding.bits - 1)
        layers[name] = {
            "at_the_ends": int(((whole == -half) | (whole == half - 1)).sum()),
            "zeros": int((whole == 0).sum()),
            "weights": whole.numel(),
        }
    part = asdict(recipe.quantise)
    return {"quantise": {**part, "start": start, "layers": layers}}
