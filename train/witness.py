"""The witness: what the trained module itself did on a few test samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..network.trace import Packed, Witness, pack
from .dataset import Examples, read
from .evaluate import outputs
from .frames import scaled
from .modules import neurons
from .spiking import Population


def witness(model: nn.Module, test: Examples, scale: float, steps: int, samples: int) -> Witness:
    """Run the first ``samples`` of the test set through a module in evaluation, on its device.

    Spikes stand under the neuron modules' path names. Raises RequestError (E_MODEL) when a neuron
    module is used twice: its two populations would share a name.
    """
    images, labels = read(test[0][:samples]), test[1][:samples]
    names = {id(module): name for name, module in neurons(model).items()}
    spikes: dict[str, Packed] = {}

    def watch(module: Population, fired: Tensor) -> None:
        name = names[id(module)]
        if name in spikes:
            raise RequestError(
                "E_MODEL", f"neuron module '{name}' is used twice; give each population its own"
            )
        spikes[name] = pack(fired.cpu().numpy())

    device = next(model.parameters()).device
    frames = scaled(torch.from_numpy(images).to(device), scale)
    seen = outputs(model, frames, steps, watch).cpu().numpy()
    indices = np.arange(len(images), dtype=np.int64)
    return Witness(images, labels, indices, np.ascontiguousarray(seen, np.float32), spikes)
