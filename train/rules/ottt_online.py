"""Online training through time that updates the weights after every step.

Xiao et al., "Online Training Through Time for Spiking Neural Networks", arXiv 2210.04195 (OTTT-O).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from .ottt import OTTT


@dataclass(frozen=True)
class OTTTOnline:
    """Online training through time: as `OTTT`, an update after each step (OTTT-O)."""

    name: ClassVar[str] = "ottt_online"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = OTTT.trains
    why: ClassVar[str] = OTTT.why
    online: ClassVar[bool] = True

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "per_step",
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """A part for each step, of which the next step's weights may already have learned."""
        return OTTT()(model, frames, steps, norm, watch)


PLUGIN = OTTTOnline
