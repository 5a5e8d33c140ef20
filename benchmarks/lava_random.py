"""Random networks in the reference, in the engine and in Lava's own models: every bit the same.

    python benchmarks/lava_random.py [--networks 300] [--seed 0] [--no-engine]

Needs `snnpipe lava setup`. Half of the networks may overflow. Counted are the values held against
Lava's (outputs; current, spike and membrane of every neuron and step) and how often the runs met
the corners of the integers; no corner may be missed, and `different` must be 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from integer_networks import corner_hits, integer_frames, random_integer_network
from lava_equality import lava_differences
from snnpipe.deploy.lava.environment import find_environment
from snnpipe.deploy.lava.models import ModelsSession
from snnpipe.deploy.lava.process import Worker

CORNERS = ("wraps", "below", "above", "at_threshold", "floors")


def main() -> None:
    """Draw, run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-engine", action="store_true", help="reference and Lava only")
    asked = parser.parse_args()
    values, different, hits, layers, kinds = 0, 0, Counter[str](), 0, Counter[str]()
    runtime = None if asked.no_engine else "event"
    start = time.monotonic()
    with Worker.start(find_environment().interpreter) as worker:
        for seed in range(asked.seed, asked.seed + asked.networks):
            network = random_integer_network(seed, legal_for_lava=True, overflow=not seed % 2)
            steps = network.contract.steps
            x = integer_frames(network, 3, seed, None if seed % 3 else steps)
            session = ModelsSession(network, worker=worker)
            wrong, compared = lava_differences(network, x, session, runtime)
            for name in wrong:
                print(f"network {seed}: {name} differs")
            different += bool(wrong)
            values += compared
            layers += len(network.layers)
            hits += corner_hits(network, x, steps)
            kinds.update(type(layer.neuron).__name__ for layer in network.layers)
            kinds.update(type(operation).__name__ for _, _, operation in network.operations())
            kinds["loops"] += sum(
                network.late(layer, synapse)
                for layer in network.layers
                for synapse in layer.synapses
            )
    print(f"networks {asked.networks}, layers {layers}, different {different}")
    print("of them " + ", ".join(f"{name} {count}" for name, count in sorted(kinds.items())))
    print(f"values compared with Lava {values:,}")
    print("corners " + ", ".join(f"{name} {hits[name]:,}" for name in sorted(hits)))
    print(f"{time.monotonic() - start:.0f} s")
    missed = [name for name in CORNERS if not hits[name]]
    if missed:
        print("missed: " + ", ".join(missed))
    sys.exit(bool(different or missed))


if __name__ == "__main__":
    main()
