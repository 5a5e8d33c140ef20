"""What the outputs of a part of a pass are held against."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .examples import Batch
from .protocol import Part
from .recipe import LossPart


@dataclass(frozen=True)
class Objective:
    """The loss of a recipe."""

    settings: LossPart

    def __call__(self, part: Part, batch: Batch) -> Tensor:
        """A number with a graph; over the parts of a pass these add up to the pass's loss."""
        smoothing = self.settings.label_smoothing
        if self.settings.form == "mean_output":
            return F.cross_entropy(part.mean, batch.targets, label_smoothing=smoothing)
        steps = part.outputs.shape[0]
        targets = batch.targets.repeat(steps, *[1] * (batch.targets.dim() - 1))
        loss = F.cross_entropy(part.outputs.flatten(0, 1), targets, label_smoothing=smoothing)
        return part.share * loss
