"""Lava's own models, the reference and the engine: the same integers, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from integer_networks import corner_hits, integer_frames, random_integer_network
from lava_equality import lava_differences
from snnpipe.deploy.lava.models import ModelsSession
from snnpipe.deploy.lava.process import Worker
from snnpipe.deploy.lava.selftest import self_test, self_test_network
from snnpipe.deploy.runtimes import lava as runtime
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv, Flatten, Layer, Network, SumPool, Synapse
from snnpipe.network.neurons import IF, LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record
from trace_equality import differences

pytestmark = pytest.mark.lava


@pytest.fixture(scope="module")
def worker(lava_python: Path) -> Iterator[Worker]:
    with Worker.start(lava_python) as started:
        yield started


def test_random_networks(worker: Worker) -> None:
    hits, values = Counter[str](), 0
    for seed in range(20):
        network = random_integer_network(seed, legal_for_lava=True, overflow=not seed % 2)
        x = integer_frames(network, 3, seed, None if seed % 3 else network.contract.steps)
        wrong, compared = lava_differences(network, x, ModelsSession(network, worker=worker))
        assert not wrong, seed
        hits += corner_hits(network, x, network.contract.steps)
        values += compared
    assert values > 100_000
    assert {name for name, count in hits.items() if count} >= {
        *("wraps", "below", "above", "at_threshold", "floors")
    }


def test_what_differs_would_be_seen(worker: Worker) -> None:
    network = self_test_network()
    x = np.random.default_rng(1).integers(0, 2, (2, 2, 6, 5)).astype(np.float32)
    last = network.layers[2]
    other = replace(last, neuron=IF(last.neuron.threshold * 0))
    layers = (*network.layers[:2], other, network.layers[3])
    session = ModelsSession(replace(network, layers=layers), worker=worker)
    wrong, _ = lava_differences(network, x, session, runtime=None)
    assert "lava: membranes of last" in wrong
    assert not {"lava: spikes.image", "lava: membranes of loop"} & set(wrong)


def convolutions(
    conv: Conv | SumPool, entering: tuple[int, ...], shape: tuple[int, ...]
) -> Network:
    """One convolution, neurons, and a copy of them that passes their spikes on as they are."""
    threshold = np.array(3000, np.float32)
    first = Layer("a", LIF(np.array(0.5, np.float32), threshold), shape, (Synapse("in", (conv,)),))
    again = (Synapse("a"), Synapse("a", (Flatten("flat", 1),)))[:1]
    second = Layer("b", IF(np.array(1, np.float32)), shape, again)
    last = Layer("c", Sum(), (shape[0] * shape[1] * shape[2],), (Synapse("b", (Flatten("f"),)),))
    contract = Contract(4, input_levels=255, arithmetic=Integer(8, {}))
    return Network("in", entering, (first, second, last), "c", contract)


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_of_every_form(worker: Worker, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = (2 * rng.integers(-127, 128, (6, 2, 3, 2))).astype(np.float32)
    conv = Conv("conv", weight, None, (2, 1), (1, 2), (1, 3), 2)
    network = convolutions(conv, (4, 7, 9), (6, 4, 10))
    x = integer_frames(network, 3, seed)
    assert lava_differences(network, x, ModelsSession(network, worker=worker), None)[0] == []
    pool = convolutions(SumPool("pool", (2, 3), (2, 1), (1, 0)), (4, 7, 9), (4, 4, 7))
    x = integer_frames(pool, 3, seed, 4)
    assert lava_differences(pool, x, ModelsSession(pool, worker=worker), None)[0] == []


def test_a_convolution_wraps_at_24_bits(worker: Worker) -> None:
    weight = np.full((2, 32, 3, 3), 254, np.float32)
    weight[1] = -256
    conv = Conv("conv", weight, None, padding=(1, 1))
    network = convolutions(conv, (32, 3, 3), (2, 3, 3))
    x = integer_frames(network, 3, 5)
    assert corner_hits(network, x, 4)["conv_wraps"] > 10
    assert lava_differences(network, x, ModelsSession(network, worker=worker), None)[0] == []


def test_any_part_size_gives_the_same_trace(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_integer_network(5, legal_for_lava=True, host=True, layers=3)
    x = integer_frames(network, 7, 1)
    steps = network.contract.steps
    expected = simulate(network, x, steps, Record(spikes=5, currents=4))
    session = ModelsSession(network, worker=worker)
    for most in (1, 3, 7):
        monkeypatch.setattr("snnpipe.deploy.lava.models._MOST_SAMPLES", most)
        found = session.run(x, steps, Record(spikes=5, currents=4))
        assert differences(found, expected) == []
        assert session.run(x, steps).spikes.keys() == expected.spikes.keys()
        assert session.run(x, steps).currents == {}


def test_the_input_is_looked_at(worker: Worker) -> None:
    session = ModelsSession(self_test_network(), worker=worker)
    x = np.zeros((1, 2, 6, 5), np.float32)
    for value, found in ((2, "0 to 2"), (0.5, "0 to 0.5"), (-1, "-1 to 0")):
        x[0, 0, 0, 0] = value
        with pytest.raises(RequestError, match=f"expected|takes whole numbers.*found {found}"):
            session.run(x, 3)
    with pytest.raises(RequestError, match="has shape"):
        session.run(x[0], 3)


def test_the_runtime_opens_and_ends_its_worker(lava_python: Path) -> None:
    session = runtime.PLUGIN.open(self_test_network(), None)
    assert session.python == lava_python
    x = np.ones((1, 2, 6, 5), np.float32)
    expected = simulate(session.network, x, 12)
    assert differences(session.run(x, 12), expected) == []
    assert session.worker is not None
    process = session.worker.process
    session.worker.close()
    assert differences(session.run(x, 12), expected) == []  # with another worker
    assert process.returncode == 0
    process = session.worker.process
    assert process.poll() is None
    del session
    assert process.poll() == 0


def test_where_it_is_not_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNNPIPE_LAVA", str(tmp_path / "none"))
    with pytest.raises(CouldNotRunError, match=r"not set up here .*none\): snnpipe lava setup"):
        runtime.PLUGIN.open(self_test_network(), None)


def test_the_self_test_passes_and_can_fail(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, lava_python: Path
) -> None:
    self_test(worker)

    def wrong(*arguments: object) -> object:
        trace = simulate(*arguments)  # type: ignore[arg-type]
        trace.spikes["last"][3] ^= 1
        return trace

    monkeypatch.setattr("snnpipe.deploy.lava.selftest.simulate", wrong)
    with pytest.raises(CouldNotRunError, match="differ from the reference in spikes of last"):
        self_test(worker)


def test_images_and_groups_beyond_127(worker: Worker) -> None:
    """numpy 2 and Lava's int8 fields do not go together; `install` patches them."""
    rng = np.random.default_rng(8)
    weight = (2 * rng.integers(-100, 128, (130, 1, 2, 2))).astype(np.float32)
    conv = Conv("conv", weight, None, (130, 1), (1, 0), groups=130)
    network = convolutions(conv, (130, 131, 3), (130, 2, 2))
    x = integer_frames(network, 1, 8)
    assert lava_differences(network, x, ModelsSession(network, worker=worker), None)[0] == []
