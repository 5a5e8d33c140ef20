"""What a training makes small: the outputs against their targets, a teacher, a price on energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RequestError
from .coding import seen
from .distributed import summed
from .energy import Energy, Ledger, Price
from .examples import Batch
from .protocol import Part, Watch
from .recipe import LossPart, Recipe
from .teacher import Teacher


@dataclass(frozen=True, eq=False)
class Told:
    """An objective for one batch: what it asks of each part of a pass over it.

    ``taught`` (B, K): the outputs of a teacher.
    """

    settings: LossPart
    batch: Batch
    taught: Tensor | None = None
    ledger: Ledger | None = None
    price: float = 0.0
    """Nats for as many operations per inference as the budget has."""

    @property
    def watch(self) -> Watch | None:
        """What the rule is to show its populations to."""
        return None if self.ledger is None else self.ledger.watch

    def __call__(self, part: Part) -> Tensor:
        """A number with a graph; over the parts of a pass these add up to the pass's loss."""
        if self.settings.form == "mean_output":
            loss = self._classes(part.mean[None])
        else:
            loss = part.share * self._classes(part.outputs)
        if self.ledger is None:
            return loss
        spent = self.ledger.part(part.share, len(part.outputs)) / self.settings.max_synops
        return loss + self.price * spent

    def _classes(self, outputs: Tensor) -> Tensor:
        """The loss of outputs (n, B, K), each for itself, averaged."""
        settings, n = self.settings, outputs.shape[0]
        loss = F.cross_entropy(
            outputs.flatten(0, 1),
            _repeated(self.batch.targets, n),
            label_smoothing=settings.label_smoothing,
        )
        if settings.mse:
            # TET, arXiv 2202.11946, eq. 11 and 12: a constant for every class holds outputs back.
            square = (outputs - settings.mse_target).square().mean()
            loss = (1.0 - settings.mse) * loss + settings.mse * square
        if self.taught is not None:
            taught = distilled(outputs, self.taught, settings.temperature)
            loss = (1.0 - settings.teacher_share) * loss + settings.teacher_share * taught
        return loss


def distilled(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(taught / tau) || softmax(outputs / tau)), averaged over n and B.

    ``outputs`` (n, B, K), ``taught`` (B, K). Hinton et al., arXiv 1503.02531, section 2.
    """
    theirs = F.log_softmax(taught / temperature, -1)
    ours = F.log_softmax(outputs.flatten(0, 1) / temperature, -1)
    divergence = F.kl_div(
        ours, _repeated(theirs, len(outputs)), reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


def _repeated(targets: Tensor, n: int) -> Tensor:
    """Targets (B,) or (B, K) for n steps of outputs, time in front."""
    return targets.repeat(n, *[1] * (targets.dim() - 1))


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of a recipe, with what it needs besides the outputs."""

    settings: LossPart
    teacher: Teacher | None = None
    energy: Energy | None = None
    price: Price | None = None

    @staticmethod
    def of(recipe: Recipe, model: nn.Module) -> Objective:
        """For a module that is about to be trained.

        Raises RequestError (E_RECIPE, E_TEACHER, E_TOPOLOGY) where the recipe's settings do not fit
        each other, its teacher or the module.
        """
        settings = recipe.loss
        if settings.mse and settings.form != "per_step":
            raise RequestError(
                "E_RECIPE",
                f"loss.mse is {settings.mse} with loss.form = {settings.form}; expected 0, or "
                "per_step, whose loss has a squared error",
            )
        device = next(model.parameters()).device
        teacher = Teacher.of(recipe, device) if settings.teacher else None
        if not settings.max_synops:
            return Objective(settings, teacher)
        energy = Energy.of(model, seen(recipe), recipe.train.steps)
        return Objective(settings, teacher, energy, Price(settings.max_synops))

    def on(self, batch: Batch) -> Told:
        """For one batch; the teacher is asked once, whatever the number of parts."""
        taught = None if self.teacher is None else self.teacher(batch.frames)
        if self.energy is None or self.price is None:
            return Told(self.settings, batch, taught)
        ledger = Ledger(self.energy, batch.frames)
        return Told(self.settings, batch, taught, ledger, self.price.now)

    def settle(self, tolds: Sequence[Told]) -> None:
        """After an update, with all that was told for it: the price follows what was spent, by
        every process together."""
        if self.price is None:
            return
        counts = [len(told.batch.labels) for told in tolds]
        spent = [told.ledger.spent for told in tolds if told.ledger is not None]
        total = sum(n * one for n, one in zip(counts, spent, strict=True))
        total, shown = summed([total, sum(counts)], tolds[0].batch.labels.device)
        self.price.settle(total / shown)
