"""Reference, torch, onnx and event: the same bits in every field of a random network's trace."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export.write import write_targets
from snnpipe.network.grid import exact_sums, snap
from snnpipe.network.layers import Network
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record
from trace_equality import differences

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

RUNTIMES = ("torch", "onnx", "event")


def on_the_grid(network: Network) -> Network:
    """The network with a certificate where there can be one; without, its sums are exact too."""
    try:
        snapped = snap(network)
    except RequestError as error:
        if error.code != "E_GRID":
            raise
        return network
    assert exact_sums(snapped)
    return snapped


def _all_equal(network: Network, seed: int, moving: bool) -> None:
    network = on_the_grid(network)
    steps = network.contract.steps
    x = frames(network, 3, seed, steps if moving else None)
    reference = simulate(network, x, steps, Record(currents=3))
    with tempfile.TemporaryDirectory() as folder:
        artefact = write_targets(network, ["onnx"], Path(folder))["onnx"]
        for name in RUNTIMES:
            session = plugins.load("runtimes", name).open(network, artefact)
            assert differences(reference, session.run(x, steps, Record(currents=3))) == [], name


QUIET = list(HealthCheck)


@given(networks(), st.integers(0, 2**31), st.booleans())
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=QUIET)
def test_all_runtimes_agree_in_every_bit(network: Network, seed: int, moving: bool) -> None:
    _all_equal(network, seed, moving)


@pytest.mark.slow
@given(networks(max_layers=5), st.integers(0, 2**31), st.booleans())
@settings(max_examples=900, derandomize=True, deadline=None, suppress_health_check=QUIET)
def test_900_networks_agree_in_every_bit(network: Network, seed: int, moving: bool) -> None:
    _all_equal(network, seed, moving)


def test_a_changed_weight_is_seen() -> None:
    from small_network import small_network

    network = small_network()
    x = np.ones((2, *network.input_shape), np.float32)
    steps = network.contract.steps
    reference = simulate(network, x, steps, Record(currents=2))
    weight = network.layers[0].synapses[0].operations[0].weight
    weight[0, 0, 0, 0] += 0.5
    session = plugins.load("runtimes", "torch").open(network, None)
    assert "currents.lif" in differences(reference, session.run(x, steps, Record(currents=2)))
