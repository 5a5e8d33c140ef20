"""Synaptic operations as part of a loss: what the spikes of a module cost, and a price for it.

A spike costs one addition for each synapse it meets, so the operations of an inference are linear
in the rates that a learning rule carries. What is counted is what `network.fanout` counts as
``synops``, with its fan-outs: for the same spikes the verifier reports the same integer. Multiply-
accumulates are not among them: what levels of an image cause in the first layer (and sums of spikes
behind a residual addition) no sparseness makes cheaper, and reports list them for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import RequestError
from ..network.contract import Contract
from ..network.fanout import additions
from .coding import Seen
from .dataset import Stored
from .evaluate import outputs
from .examples import in_order, stored_on
from .frames import scaled
from .spiking import Population
from .topology import INPUT, topology

Costs = tuple[tuple[int, Tensor], ...]
"""For each lateness in steps: additions per spike, int64, the shape of what spikes."""


@dataclass(frozen=True, eq=False)
class Energy:
    """The fan-outs of a module's populations, each under its neuron module.

    ``populations``: for each neuron module its populations in the order of the calls (one, unless
    it is used twice); ``entering``: of the input, empty where that is not made of spikes.
    """

    populations: Mapping[int, tuple[Costs, ...]]
    entering: Costs
    steps: int

    @staticmethod
    def of(model: nn.Module, data: Seen, steps: int) -> Energy:
        """Count the synapses of a module for a data set; nothing is computed.

        Raises RequestError (E_TOPOLOGY) where operations do not follow from spikes.
        """
        contract = Contract(steps, input_coding=data.coding, input_levels=data.levels)
        found = topology(model, data.shape, contract)
        device = next(model.parameters()).device
        costs: dict[str, Costs] = {}
        for one in additions(found.network):
            if one.source not in found.populations and one.source != INPUT:
                raise RequestError(
                    "E_TOPOLOGY",
                    "the operations of a sum that feeds neurons without weights (a pre-activation "
                    "block) do not follow from spikes; such a network has no budget of operations",
                )
            fan_out = torch.from_numpy(one.fan_out).to(device)
            costs[one.source] = (*costs.get(one.source, ()), (one.late, fan_out))
        populations: dict[int, tuple[Costs, ...]] = {}
        for name, module in found.populations.items():
            earlier = populations.get(id(module), ())
            populations[id(module)] = (*earlier, costs.get(name, ()))
        return Energy(populations, costs.get(INPUT, ()), steps)

    def entering_of(self, frames: Tensor) -> float:
        """Additions per inference that the spikes of the input cause; ``frames`` as of a rule."""
        if not self.entering:
            return 0.0
        rates = (frames != 0).double().mean((0, 1))
        return float((rates * _worth(self.entering, self.steps)).sum()) * self.steps

    def count(self, model: nn.Module, frames: Tensor) -> NDArray[np.int64]:
        """Additions that arrive at each step, (T,), all samples of ``frames`` together; of a module
        in evaluation. ``frames`` as of a learning rule."""
        arriving = torch.zeros(self.steps, dtype=torch.int64, device=frames.device)
        calls: dict[int, int] = {}

        def watch(module: Population, spikes: Tensor) -> None:
            call = calls[id(module)] = calls.get(id(module), -1) + 1
            _arrive(arriving, spikes, self.populations[id(module)][call])

        outputs(model, frames, self.steps, watch)
        _arrive(arriving, frames, self.entering)
        return arriving.cpu().numpy()

    def of_images(
        self, model: nn.Module, stored: Stored, scale: float, batch: int = 500
    ) -> NDArray[np.int64]:
        """As `count`, of stored images (N, C, H, W) or recordings (N, T, C, H, W)."""
        total, device = np.zeros(self.steps, np.int64), next(model.parameters()).device
        examples = stored_on(device, (stored, np.zeros(len(stored), np.int64)))
        for part, _ in in_order(*examples, batch):
            total += self.count(model, scaled(part, scale))
        return total


def _arrive(arriving: Tensor, spikes: Tensor, costs: Costs) -> None:
    """Add what ``spikes`` (T, B, ...) cost to the steps at which they arrive."""
    for late, fan_out in costs:
        fired = (spikes != 0).sum(1).flatten(1)[: len(arriving) - late]
        arriving[late:] += (fired * fan_out.flatten()).sum(1)


class Ledger:
    """The operations of a batch as a rule goes over it: what it carries is entered by `watch` and
    taken out part by part, all per inference of as many steps as the network is to run."""

    def __init__(self, energy: Energy, frames: Tensor) -> None:
        self._energy = energy
        self._calls: dict[int, int] = {}
        self._entered: list[Tensor] = []
        self._steps_an_entry = 0.0
        self._spent = energy.entering_of(frames)

    def watch(self, module: Population, carried: Tensor) -> None:
        """Enter spikes or rates (n, B, ...)."""
        of_module = self._energy.populations[id(module)]
        call = self._calls[id(module)] = self._calls.get(id(module), -1) + 1
        worth = _worth(of_module[call % len(of_module)], self._energy.steps)
        wide = torch.promote_types(carried.dtype, torch.float32)  # bfloat16 cannot count
        self._entered.append((carried.mean(1, dtype=wide).sum(0) * worth).sum())

    def part(self, share: float, entries: int) -> Tensor:
        """Operations (), with a graph, of a part that was just passed: of ``share`` of the steps,
        in so many ``entries`` (n of its outputs).

        Raises RequestError (E_RULE) where the rule carries no gradient to rates.
        """
        self._steps_an_entry = share * self._energy.steps / entries
        spent = torch.stack(self._entered).sum() * self._steps_an_entry
        if not spent.requires_grad:
            raise RequestError(
                "E_RULE",
                "loss.max_synops is set, but this rule lets no gradient through to rates; expected "
                "another rule",
            )
        self._entered.clear()
        self._spent += float(spent.detach())
        return spent

    @property
    def spent(self) -> float:
        """Operations of all that was entered, steps that no part covers included."""
        return self._spent + self._steps_an_entry * sum(float(one) for one in self._entered)


def _worth(costs: Costs, steps: int) -> Tensor | float:
    """Additions per spike, whenever in ``steps`` it may come: what arrives after them is none."""
    return sum(fan_out * (1.0 - min(late, steps) / steps) for late, fan_out in costs)


_SPRING, _STEP, _NEAR, _BELOW = 2.0, 0.05, 0.5, 0.98
"""Of `Price`; nothing of them depends on the network. With them budgets of a tenth of what a net
spends without one were kept after 200 updates, by AdamW and by SGD."""


class Price:
    """What operations cost: a multiplier that rises while more than the budget is spent.

    The augmented Lagrangian of one inequality (Rockafellar, SIAM J. Control 12 (1974) 268): a batch
    pays max(0, price + spring * excess) nats for spending the budget once, and the price, never
    below 0, then moves by step * excess, where excess = spent / aim - 1 of the batch before, at
    most 1. It moves near the aim alone: on the long way there the spring pulls, and a price that
    grew all the while would silence the network. The aim lies a little below the budget, since
    other images than the training's must keep to it.
    """

    def __init__(self, budget: float) -> None:
        self.price, self.excess = 0.0, 0.0
        self._aim = _BELOW * budget

    @property
    def now(self) -> float:
        """Nats for spending the budget once."""
        return max(0.0, self.price + _SPRING * self.excess)

    def settle(self, spent: float) -> None:
        """Move after a batch that spent so many operations per inference."""
        self.excess = min(1.0, spent / self._aim - 1.0)
        if abs(self.excess) < _NEAR:
            self.price = max(0.0, self.price + _STEP * self.excess)

    def state_dict(self) -> dict[str, float]:
        """What moves in training."""
        return {"price": self.price, "excess": self.excess}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on where ``state`` was taken."""
        self.price, self.excess = state["price"], state["excess"]
