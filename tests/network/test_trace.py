"""Traces joined and cut, and witnesses that must be of the network at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_network import small_network
from snnpipe.errors import RequestError
from snnpipe.network.grid import snap
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Witness, join
from trace_equality import differences

NETWORK = snap(small_network())  # exact sums: the same bits at every batch size
RNG = np.random.default_rng(3)
X = RNG.integers(0, 2, (7, *NETWORK.input_shape)).astype(np.float32)
TRACE = simulate(NETWORK, X, 3, Record(currents=7))
WITNESS = Witness(X, np.arange(7), np.arange(7) + 100, TRACE.outputs, TRACE.spikes)


def test_joined_parts_are_the_whole() -> None:
    parts = [simulate(NETWORK, X[a:b], 3, Record(currents=7)) for a, b in ((0, 2), (2, 7))]
    assert not differences(join(parts), TRACE)
    assert differences(join(parts[::-1]), TRACE)


def test_the_first_steps_are_a_shorter_run() -> None:
    assert not differences(TRACE.until(2), simulate(NETWORK, X, 2, Record(currents=7)))


def test_a_witness_of_the_network_passes(tmp_path: Path) -> None:
    WITNESS.save(tmp_path / "witness.npz")
    found = Witness.load(tmp_path / "witness.npz")
    found.check(NETWORK)
    assert found.spikes.keys() == WITNESS.spikes.keys()
    assert found.outputs.tobytes() == WITNESS.outputs.tobytes()


FIRST = next(iter(WITNESS.spikes))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"spikes": {}}, f"spikes.{FIRST}"),
        ({"spikes": {**WITNESS.spikes, FIRST: WITNESS.spikes[FIRST][:-1]}}, f"spikes.{FIRST}"),
        ({"spikes": {**WITNESS.spikes, FIRST: WITNESS.spikes[FIRST] * 1.0}}, "float64"),
        ({"inputs": X[:3]}, "inputs"),
        ({"outputs": TRACE.outputs[..., :1]}, "outputs"),
        ({"outputs": TRACE.outputs[:2]}, "outputs"),
        ({"labels": np.arange(7.0)}, "labels"),
    ],
)
def test_a_witness_that_does_not_fit_is_refused(changes: Any, word: str) -> None:
    with pytest.raises(RequestError, match=word) as caught:
        replace(WITNESS, **changes).check(NETWORK)
    assert caught.value.code == "E_WITNESS"


def test_a_damaged_witness_ends_in_a_request_error_or_a_witness(tmp_path: Path) -> None:
    path = tmp_path / "witness.npz"
    WITNESS.save(path)
    whole, refused = path.read_bytes(), []
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            Witness.load(path)
        except RequestError as error:
            refused.append(error.code)
    assert len(refused) > 50
    assert set(refused) == {"E_WITNESS"}


@pytest.mark.parametrize("content", [b"", b"PK", b"not a file of arrays"])
def test_other_files_are_no_witness(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(RequestError) as caught:
        Witness.load(tmp_path / "x.npz")
    assert caught.value.code == "E_WITNESS"
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(RequestError):
        Witness.load(tmp_path / "one.npy")


@pytest.mark.parametrize(("steps", "samples"), [(0, 2), (3, 0)])
def test_a_run_of_nothing_is_refused(steps: int, samples: int) -> None:
    with pytest.raises(RequestError, match="1 step or more") as caught:
        simulate(NETWORK, X[:samples], steps)
    assert caught.value.code == "E_INPUT"
