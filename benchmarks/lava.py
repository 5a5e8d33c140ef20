"""Samples a second of one integer network: the event engine, and Lava's processes three ways.

28x28 binary frames; convolutions 1 -> 8 (stride 2), 8 -> 16 (stride 2), 16 -> 16, all 3x3, and
256 -> 10; LIF with decay 7/8 and threshold 300; T = 4. On one core. Each way must give the
reference's spikes first. Needs `snnpipe lava setup`.

    OMP_NUM_THREADS=1 python benchmarks/lava.py [--samples 512] [--streamed 64]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from snnpipe import plugins
from snnpipe.deploy.lava.environment import find_environment
from snnpipe.deploy.lava.models import ModelsSession
from snnpipe.deploy.lava.process import Worker
from snnpipe.deploy.lava.wired import Program, WiredSession
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Trace

STEPS = 4


def network() -> Network:
    """Weights drawn once; see above."""
    rng = np.random.default_rng(0)

    def even(low: int, high: int, *shape: int) -> Any:
        return (2 * rng.integers(low, high, shape)).astype(np.float32)

    neuron = LIF(np.float32(7 / 8), np.float32(300))
    chains = [
        ("a", (8, 13, 13), (Conv("wa", even(-60, 90, 8, 1, 3, 3), None, (2, 2)),)),
        ("b", (16, 6, 6), (Conv("wb", even(-40, 50, 16, 8, 3, 3), None, (2, 2)),)),
        ("c", (16, 4, 4), (Conv("wc", even(-40, 44, 16, 16, 3, 3)),)),
        ("d", (10,), (Flatten("flat"), Dense("wd", even(-40, 50, 10, 256)))),
    ]
    layers, source = [], "input"
    for name, shape, operations in chains:
        layers.append(Layer(name, neuron, shape, (Synapse(source, operations),)))
        source = name
    return Network(
        "input", (1, 28, 28), tuple(layers), "d", Contract(STEPS, arithmetic=Integer(8, {}))
    )


def frames(samples: int) -> Any:
    """Another frame at every step, a fifth of it on."""
    rng = np.random.default_rng(1)
    return (rng.random((STEPS, samples, 1, 28, 28)) < 0.2).astype(np.float32)


def same(found: Trace, truth: Trace) -> bool:
    """Whether every spike of every layer is the reference's."""
    return all((found.spikes[name] == bits).all() for name, bits in truth.spikes.items())


def rows(samples: int, streamed: int) -> Iterator[tuple[str, int, float, float, bool]]:
    """(way, samples, seconds of the run alone, with start and stop, equal to the reference)."""
    made, python = network(), find_environment().interpreter
    x = frames(samples)
    truth = simulate(made, x, STEPS)
    event = plugins.load("runtimes", "event").open(made, None)
    event.run(x[:, :2], STEPS)
    began = time.monotonic()
    found = event.run(x, STEPS)
    seconds = time.monotonic() - began
    yield "event engine", samples, seconds, seconds, same(found, truth)
    few = simulate(made, x[:, :streamed], STEPS)
    first = simulate(made, x[:, :1], STEPS)
    with Worker.start(python) as worker:
        models = ModelsSession(made, worker=worker)
        models.run(x[:, :1], STEPS)
        began = time.monotonic()
        found = models.run(x[:, :streamed], STEPS)
        seconds = time.monotonic() - began
        yield "lava: models in one process", streamed, seconds, seconds, same(found, few)
        ways: tuple[tuple[str, Program, int, Trace], ...] = (
            ("lava_batched", "batched", samples, truth),
            ("lava_standard, streamed", "standard", streamed, few),
            ("lava_standard, one sample", "standard", 1, first),
        )
        for way, program, count, expected in ways:
            session = WiredSession(made, program, worker=worker)
            session.run(x[:, :1], STEPS)  # imports
            began = time.monotonic()
            found = session.run(x[:, :count], STEPS)
            whole = time.monotonic() - began
            yield way, count, session.seconds["run"], whole, same(found, expected)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--streamed", type=int, default=64)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{'':30}{'samples':>9}{'per s, run':>12}{'with start':>12}  spikes")
    for way, count, run, whole, equal in rows(asked.samples, asked.streamed):
        equality = "equal" if equal else "DIFFER"
        print(f"{way:30}{count:9}{count / run:12.1f}{count / whole:12.1f}  {equality}", flush=True)


if __name__ == "__main__":
    main()
