"""Runs NIR files in another framework, through that framework's own importer.

    PYTHON tests/foreign/run_importers.py FRAMEWORK FOLDER

FRAMEWORK is snntorch, spikingjelly or sinabs, and PYTHON has it. Every folder in FOLDER holds
``network.nir``, ``inputs.npy`` (T, B, *shape) and ``readers``, a list of names; where FRAMEWORK is
among them ``FRAMEWORK.npy`` is put beside, what leaves the network at every step (T, B, *shape).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import nir
import numpy as np
import torch


def stepped(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The outputs of a network that takes (frame, state) and gives (output, state)."""
    state, outputs = None, []
    for frame in x:
        output, state = network(frame, state)
        outputs.append(output)
    return torch.stack(outputs)


def snntorch(path: str, x: torch.Tensor) -> torch.Tensor:
    """The reading of snnTorch."""
    from snntorch.import_nir import import_from_nir

    return stepped(import_from_nir(nir.read(path)), x)


def spikingjelly(path: str, x: torch.Tensor) -> torch.Tensor:
    """The reading of SpikingJelly."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return stepped(import_from_nir(path), x)


def sinabs(path: str, x: torch.Tensor) -> torch.Tensor:
    """The reading of sinabs, which takes time and batch in one axis, the steps of a sample in a
    row."""
    from sinabs.nir import from_nir

    steps, batch = x.shape[:2]
    network = from_nir(nir.read(path), batch_size=batch, num_timesteps=steps)
    output, _ = network(x.transpose(0, 1).flatten(0, 1))
    return output.unflatten(0, (batch, steps)).transpose(0, 1)


READERS: dict[str, Callable[[str, torch.Tensor], torch.Tensor]] = {
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
    "sinabs": sinabs,
}


def main(framework: str, folder: Path) -> None:
    """Read, run, write."""
    for readers in sorted(folder.glob("*/readers")):
        if framework in readers.read_text().split():
            x = torch.from_numpy(np.load(readers.with_name("inputs.npy")))
            with torch.no_grad():
                found = READERS[framework](str(readers.with_name("network.nir")), x)
            np.save(readers.with_name(f"{framework}.npy"), found.numpy().astype(np.float32))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
