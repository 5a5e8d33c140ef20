"""Records SpikingJelly's neurons with hard reset, and the files it writes for them.

    PYTHON tests/foreign/record_spikingjelly.py OUT.npz

PYTHON has spikingjelly, nirtorch and nir.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from recording import NEURONS, inputs, save
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir

CELLS = {
    "lif": lambda: neuron.LIFNode(tau=4.0, decay_input=False, v_reset=0.0),
    "lif-decay-input": lambda: neuron.LIFNode(tau=2.0, decay_input=True, v_reset=0.0),
    "if": lambda: neuron.IFNode(v_threshold=1.5, v_reset=0.0),
    "cuba": lambda: neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, v_threshold=2.0, v_reset=0.0),
}


def main(out: Path) -> None:
    """Record every case."""
    x = inputs()
    frames = torch.from_numpy(x)
    cases = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, make in CELLS.items():
            linear = layer.Linear(NEURONS, NEURONS, bias=False)
            linear.weight.data = torch.eye(NEURONS)
            path = Path(folder) / f"{name}.nir"
            export_to_nir(torch.nn.Sequential(linear, make()), frames[0], path)
            cell = make()
            functional.reset_net(cell)
            cases[name] = path, np.stack([cell(frame).numpy() for frame in frames])
        save(out, ("spikingjelly", "nirtorch", "nir", "torch", "numpy"), x, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
