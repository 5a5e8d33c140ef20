"""Networks of others on every runtime: what each spike's replay says, file by file.

    SNNPIPE_DATA=... python benchmarks/foreign.py [FOLDER] [--samples 4] [--steps 60]

FOLDER holds .nir files; without it, `nir_corpus` beside the folder that SNNPIPE_DATA names. Each is
read under `nir-strict` and under `norse` (where IF neurons of gain 1/dt and 1 fire), shown random
events, and run on torch, onnx and event; `wrong` must be 0.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export.write import write_targets
from snnpipe.network.layers import Network
from snnpipe.network.neurons import Spiking
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace
from snnpipe.verify.compare import Differences, count
from snnpipe.verify.proof import prove

SEMANTICS = ("nir-strict", "norse")
RUNTIMES = ("torch", "onnx", "event")


def _traces(network: Network, x: np.ndarray, steps: int) -> Iterator[tuple[str, Trace]]:
    yield "reference", simulate(network, x, steps, Record())
    with tempfile.TemporaryDirectory() as folder:
        written = write_targets(network, ["onnx"], Path(folder))
        for name in RUNTIMES:
            session = plugins.load("runtimes", name).open(network, written["onnx"])
            yield name, session.run(x, steps, Record())


def _rows(path: Path, semantics: str, options: argparse.Namespace) -> Iterator[str]:
    try:
        network = read_network(path, semantics)
    except RequestError as error:
        yield f"{path.stem:<44} {semantics:<10} refused: {error.message.removeprefix(f'{path}: ')}"
        return
    steps = options.steps
    network = network.with_contract(replace(network.contract, steps=steps))
    rng = np.random.default_rng(0)
    shape = (steps, options.samples, *network.input_shape)
    x = (rng.random(shape) < options.density).astype(np.float32)
    truth: Trace | None = None
    for name, found in _traces(network, x, steps):
        truth = found if truth is None else truth
        judged = prove(network, x, found, 0)
        differences = Differences()
        count(network, truth, found, differences)
        spiking = [row for row in judged if isinstance(network.layer(row.layer).neuron, Spiking)]
        yield (
            f"{path.stem:<44} {semantics:<10} {name:<9} {sum(r.judged for r in spiking):>10,} "
            f"{sum(r.spikes for r in spiking):>9,} {sum(r.wrong for r in judged):>6} "
            f"{sum(r.within_rounding for r in spiking):>7} "
            f"{sum(differences.changed.values()):>7}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    corpus = Path(os.environ.get("SNNPIPE_DATA", ".")).resolve().parent / "nir_corpus"
    parser.add_argument("folder", type=Path, nargs="?", default=corpus)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--density", type=float, default=0.1)
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.nir"))
    if not files:
        print(f"foreign: {options.folder} holds no .nir file; left out")
        return
    print(
        f"{'file':<44} {'semantics':<10} {'runtime':<9} {'decisions':>10} {'spikes':>9} "
        f"{'wrong':>6} {'within':>7} {'differ':>7}"
    )
    for path in files:
        for semantics in SEMANTICS:
            for row in _rows(path, semantics, options):
                print(row, flush=True)


if __name__ == "__main__":
    main()
