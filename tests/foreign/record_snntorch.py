"""Records snnTorch's neurons, and what its importer makes of its own files.

    PYTHON tests/foreign/record_snntorch.py OUT.npz

PYTHON has snntorch, nirtorch and nir.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nir
import numpy as np
import snntorch
import torch
from recording import NEURONS, inputs, save
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir

BETAS = torch.tensor([0.5, 0.75, 0.25, 0.875]).repeat(NEURONS // 4)
ALPHAS = torch.tensor([0.75, 0.5, 0.5, 0.25]).repeat(NEURONS // 4)
THRESHOLD = torch.ones(NEURONS)


def native(cell: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """The spikes of one cell, its state handed on from step to step by hand."""
    state = [torch.zeros(x.shape[1:])] * (2 if isinstance(cell, snntorch.Synaptic) else 1)
    spikes = []
    for frame in x:
        spike, *state = cell(frame, *state)
        spikes.append(spike.detach().numpy())
    return np.stack(spikes)


def write(cell: torch.nn.Module, path: Path) -> None:
    """The cell behind a linear map that changes nothing, as snnTorch exports it."""
    linear = torch.nn.Linear(NEURONS, NEURONS, bias=False)
    linear.weight.data = torch.eye(NEURONS)
    network = torch.nn.Sequential(linear, cell)
    nir.write(path, export_to_nir(network, torch.zeros(1, NEURONS), ignore_dims=[0]))


def imported(path: Path, x: torch.Tensor) -> np.ndarray:
    """The spikes of what snnTorch's importer makes of a file."""
    network = import_from_nir(nir.read(path))
    state, spikes = None, []
    for frame in x:
        spike, state = network(frame, state)
        spikes.append(spike.detach().numpy())
    return np.stack(spikes)


def main(out: Path) -> None:
    """Record every case."""
    x = inputs()
    frames = torch.from_numpy(x)
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (
            ("leaky", lambda **hidden: snntorch.Leaky(BETAS, THRESHOLD, **hidden)),
            ("synaptic", lambda **hidden: snntorch.Synaptic(ALPHAS, BETAS, THRESHOLD, **hidden)),
        ):
            path = Path(folder) / f"{name}.nir"
            write(make(init_hidden=True), path)
            cases[name] = path, native(make(), frames)
            if name == "leaky":
                cases["leaky-imported"] = path, imported(path, frames)
        save(out, ("snntorch", "nirtorch", "nir", "torch", "numpy"), x, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
