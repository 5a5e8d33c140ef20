"""Lava's real runtime, each process its own: the spikes and outputs of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from integer_networks import integer_frames, random_integer_network
from snnpipe.deploy.lava import wired
from snnpipe.deploy.lava.process import Worker
from snnpipe.deploy.lava.wired import Program, WiredSession
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.network.layers import Network
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace
from snnpipe.network.wiring import wiring
from whole_exponents import with_whole_exponents

pytestmark = pytest.mark.lava


@pytest.fixture(scope="module")
def worker(lava_python: Path) -> Iterator[Worker]:
    with Worker.start(lava_python) as started:
        yield started


def drawn(seed: int) -> Network:
    return with_whole_exponents(
        random_integer_network(seed, steps=seed % 5 + 1, legal_for_lava=True)
    )


def wrong(found: Trace, truth: Trace) -> list[str]:
    names = [] if (found.outputs == truth.outputs).all() else ["outputs"]
    assert set(found.fired) == set(truth.fired)
    assert set(found.spikes) == set(truth.spikes)
    names += [f"fired.{k}" for k in truth.fired if (found.fired[k] != truth.fired[k]).any()]
    return names + [k for k in truth.spikes if (found.spikes[k] != truth.spikes[k]).any()]


def parts_of(networks: list[Network]) -> set[str]:
    """What the connections of networks show of Lava."""
    found: set[str] = set()
    for network in networks:
        made = wiring(network)
        found |= {connection.kind for connection in made.connections}
        found |= {"delay" for connection in made.connections if connection.delay}
        found |= {"cleared" for connection in made.connections if connection.cleared}
        found |= {"graded" for connection in made.connections if connection.graded}
        found |= {"exponent" for connection in made.connections if connection.exponent}
        found |= {"relay" for population in made.populations if population.relay}
        found |= {"host" for stream in made.streams if stream.layer}
    return found


SEEDS = (12, 104, 153, 317)
EVERYTHING = {"dense", "conv", "delay", "cleared", "graded", "exponent", "relay", "host"}


@pytest.mark.parametrize("program", ["standard", "batched"])
def test_random_networks_as_the_reference(
    program: Program, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wired, "BATCH", 3)  # 7 samples are two batches and a rest
    networks = [drawn(seed) for seed in SEEDS]
    assert parts_of(networks) == EVERYTHING
    for seed, network in zip(SEEDS, networks, strict=True):
        steps = network.contract.steps
        x = integer_frames(network, 7, seed, steps if seed % 2 else None)
        truth = simulate(network, x, steps)
        found = WiredSession(network, program, worker=worker).run(x, steps)
        assert not wrong(found, truth), seed
        assert all(bits.any() for bits in truth.spikes.values()), seed


def test_samples_in_parts_and_what_is_kept(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    network = drawn(317)
    x = integer_frames(network, 7, 1)
    truth = simulate(network, x, network.contract.steps, Record(spikes=5))
    monkeypatch.setattr(wired, "MOST_SAMPLES", {"standard": 4, "batched": 4})
    session = WiredSession(network, "batched", worker=worker)
    assert not wrong(session.run(x, network.contract.steps, Record(spikes=5)), truth)
    assert session.seconds["time_steps"] == 2 * (network.contract.steps + session.wired.depth)


def test_another_threshold_would_be_seen(worker: Worker) -> None:
    network = drawn(317)
    x = integer_frames(network, 7, 1)
    session = WiredSession(network, "batched", worker=worker)
    first = session.wired.populations[0]
    higher = replace(first, vth=first.vth + 1000)
    session.wired = replace(session.wired, populations=(higher, *session.wired.populations[1:]))
    found = session.run(x, network.contract.steps)
    assert first.name in wrong(found, simulate(network, x, network.contract.steps))


def test_a_failure_inside_a_process_ends(lava_python: Path) -> None:
    network = drawn(317)
    session = WiredSession(network, "standard", python=lava_python)
    layers = [replace(p, bias_mant=np.full(5, 1)) for p in session.wired.populations[:1]]
    session.wired = replace(session.wired, populations=(*layers, *session.wired.populations[1:]))
    x = integer_frames(network, 2, 1)
    with pytest.raises(CouldNotRunError, match="standard") as caught:
        session.run(x, network.contract.steps)
    assert caught.value.code in {"E_LAVA", "E_DEADLINE"}
    assert session.worker is not None
    assert not session.worker.open


def test_what_is_no_frame_is_refused(worker: Worker) -> None:
    network = drawn(317)
    session = WiredSession(network, "batched", worker=worker)
    with pytest.raises(RequestError, match="shape"):
        session.run(np.zeros((3, 99), np.float32), 2)
