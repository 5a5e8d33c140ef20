"""Spatial learning through time that learns from a few steps of each pass, drawn at random.

Meng et al., "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
Networks", arXiv 2302.14311 (SLTT-K).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import RequestError
from ..frames import gradient_times, watching
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..stepwise import parts
from .sltt import cut_in_time


@dataclass(frozen=True)
class SLTTK:
    """Spatial learning through time on ``chosen`` steps; the others pass without a graph.

    ``rescale``: the gradient times T / chosen, whose expectation is that of all steps. Torch's
    global random state draws the steps.
    """

    name: ClassVar[str] = "sltt_k"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = {"per_step": ("per_step",)}
    why: ClassVar[str] = (
        "it goes backward after each step it learns from, where neither the statistics nor the "
        "outputs of later steps are known"
    )
    online: ClassVar[bool] = False
    chosen: int = 1
    rescale: bool = False

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "per_step",  # noqa: ARG002 - the protocol's
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """A part for each step learned from. Raises RequestError (E_RULE) if there are too few."""
        if self.chosen > steps:
            raise RequestError(
                "E_RULE",
                f"rule.chosen is {self.chosen}, but a pass has {steps} steps to learn from",
            )
        learned = set(torch.randperm(steps)[: self.chosen].tolist())
        factor = steps / self.chosen if self.rescale else 1.0
        step = cut_in_time(model, steps, watching(watch, factor))
        for part in parts(step, frames, steps, learned, 1.0 / steps):
            yield replace(part, outputs=gradient_times(part.outputs, factor))


PLUGIN = SLTTK
