"""A moving average of a model's weights: what is tested and kept in the place of the last ones.

The statistics of batch normalisation are averaged with the weights. Taking them anew for the
averaged weights would cost a pass over the training images at every look; they move slowly beside
the average as it is, and the number that counts is measured with what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of a model's parameters and buffers.

    After update n of ``decay`` d the average moves by 1 - min(d, (1 + n) / (10 + n)) towards the
    model, so that the weights drawn at the start are forgotten sooner than d alone would forget
    them. What is no floating number (counters) is the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._values = {name: value.clone() for name, value in _state(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """To be called after each step of the optimiser."""
        self.updates += 1
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in _state(model).items():
            if value.is_floating_point():
                self._values[name].lerp_(value, share)
            else:
                self._values[name].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model holds the average inside, and its own values, bit for bit, afterwards."""
        own = {name: value.clone() for name, value in _state(model).items()}
        _fill(model, self._values)
        try:
            yield model
        finally:
            _fill(model, own)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if it had never stopped."""
        return {"updates": self.updates, "values": dict(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.updates = int(state["updates"])
        for name, value in self._values.items():
            value.copy_(state["values"][name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


@torch.no_grad()
def _fill(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """In place: the layout in memory stays the model's."""
    for name, value in _state(model).items():
        value.copy_(values[name])
