"""One neuron of the NIR paper, ours against eleven platforms: spikes, step for step.

`lif_norse.nir` (tau 2.5 ms, threshold 0.1) read under ``nir-strict``, dt 0.1 ms, 1,000 steps of the
input that Norse got, against the recorded traces of the paper's first experiment (Pedersen et al.,
Nature Communications 2024). The files lie in `nir_corpus`, beside the folder that SNNPIPE_DATA
names. Run as `SNNPIPE_DATA=... python benchmarks/lif_traces.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate

NETWORK, INPUT = "lif_norse.nir", "expected/lif_norse.csv"


def recorded(file: Path) -> tuple[NDArray[np.float32], list[int]]:
    """The input of every step and the steps with a spike; columns input, membrane, spike."""
    columns = np.loadtxt(file, np.float32, delimiter=",", ndmin=2)
    return columns[:, 0], np.flatnonzero(columns[:, 2]).tolist()


def ours(corpus: Path) -> list[int]:
    """The steps at which our neuron fires."""
    x, _ = recorded(corpus / INPUT)
    network = read_network(corpus / NETWORK, "nir-strict")
    outputs = simulate(network, x.reshape(-1, 1, 1), len(x)).outputs
    return np.flatnonzero(outputs).tolist()


def verdict(found: list[int], theirs: list[int]) -> str:
    """Equal, equal but late, or the first step at which one of the two fires alone."""
    if found == theirs:
        return "equal"
    shifts = {b - a for a, b in zip(found, theirs, strict=False)}
    if len(found) == len(theirs) and len(shifts) == 1:
        (shift,) = shifts
        return (
            f"equal, {abs(shift)} step{'s' * (abs(shift) > 1)} {'late' if shift > 0 else 'early'}"
        )
    return f"first differs at step {min(set(found) ^ set(theirs))}"


def rows(corpus: Path) -> dict[str, tuple[str, list[int]]]:
    """Platform to verdict and spikes."""
    found = ours(corpus)
    files = sorted((corpus / "expected").glob("lif_*.csv"))
    traces = {file.stem.removeprefix("lif_"): recorded(file)[1] for file in files}
    return {name: (verdict(found, theirs), theirs) for name, theirs in traces.items()}


def main() -> None:
    """Print the table."""
    data = os.environ.get("SNNPIPE_DATA")
    corpus = Path(data).parent / "nir_corpus" if data else Path("nir_corpus")
    if not (corpus / NETWORK).is_file():
        print(f"lif_traces: {corpus} holds no {NETWORK}; left out")
        return
    print(f"{'platform':<18}{'spikes at steps':<24}against ours")
    print(f"{'ours, nir-strict':<18}{' '.join(map(str, ours(corpus))):<24}")
    for name, (text, spikes) in rows(corpus).items():
        print(f"{name:<18}{' '.join(map(str, spikes)):<24}{text}")


if __name__ == "__main__":
    main()
