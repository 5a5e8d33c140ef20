"""Records norse's cells, and what its importer makes of the files that mean them.

    PYTHON tests/foreign/record_norse.py OUT.npz

PYTHON has norse, nirtorch and nir. norse's exporter multiplies its time constants by dt once too
often and cannot write single numbers, so the files are written here as its importer reads them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nir
import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.iaf import IAFParameters
from norse.torch.functional.lif import LIFParameters
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.module.iaf import IAFCell
from norse.torch.module.lif import LIFCell
from norse.torch.module.lif_box import LIFBoxCell
from recording import NEURONS, inputs, save

DT = 1e-3
"""norse's default."""
TAU, TAU_SYN = 4 * DT, 2 * DT


def full(value: float) -> np.ndarray:
    """One value for every neuron."""
    return np.full(NEURONS, value)


def tensor(value: float) -> torch.Tensor:
    """One value for every neuron, as a tensor."""
    return torch.full((NEURONS,), value)


NODES = {
    "lif-box": nir.LIF(
        tau=full(TAU), r=full(1.0), v_leak=full(0.0), v_threshold=full(0.5), v_reset=full(0.0)
    ),
    "lif": nir.CubaLIF(
        tau_mem=full(TAU), tau_syn=full(TAU_SYN), r=full(1.0), w_in=full(TAU_SYN / DT),
        v_leak=full(0.0), v_threshold=full(0.75), v_reset=full(0.0),
    ),
    "iaf": nir.IF(r=full(1.0), v_threshold=full(1.5), v_reset=full(0.0)),
}  # fmt: skip
CELLS = {
    "lif-box": LIFBoxCell(LIFBoxParameters(tau_mem_inv=1 / tensor(TAU), v_th=tensor(0.5)), dt=DT),
    "lif": LIFCell(
        LIFParameters(
            tau_mem_inv=1 / tensor(TAU), tau_syn_inv=1 / tensor(TAU_SYN), v_th=tensor(0.75)
        ),
        dt=DT,
    ),
    "iaf": IAFCell(IAFParameters(v_th=tensor(1.5)), dt=DT),
}


def spikes(cell: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """The spikes of a stateful module."""
    state, found = None, []
    for frame in x:
        spike, state = cell(frame, state)
        found.append(spike.detach().numpy())
    return np.stack(found)


def main(out: Path) -> None:
    """Record every cell, and every file through the importer."""
    x = inputs()
    frames = torch.from_numpy(x)
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, node in NODES.items():
            path = Path(folder) / f"{name}.nir"
            shape = np.array([NEURONS])
            nodes = {
                "input": nir.Input({"input": shape}),
                "cell": node,
                "output": nir.Output({"output": shape}),
            }
            nir.write(path, nir.NIRGraph(nodes, [("input", "cell"), ("cell", "output")]))
            cases[name] = path, spikes(CELLS[name], frames)
            cases[f"{name}-imported"] = path, spikes(norse.from_nir(nir.read(path)), frames)
        save(out, ("norse", "nirtorch", "nir", "torch", "numpy"), x, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
