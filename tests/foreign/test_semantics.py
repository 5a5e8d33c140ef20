"""Files read under a framework's semantics give that framework's own spikes.

Compared with recordings in ``tests/golden/foreign``; and anew where the environment variable
SNNPIPE_FOREIGN_A names a python with snntorch, spikingjelly, norse, nir and nirtorch.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign.recording import LEVEL, NEURONS, SAMPLES, STEPS
from snnpipe.errors import RequestError
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "foreign"
PYTHON = os.environ.get("SNNPIPE_FOREIGN_A")
CASES = [
    ("snntorch", "leaky", "snntorch", "snntorch-import"),
    ("snntorch", "synaptic", "snntorch", "snntorch-import"),
    ("snntorch", "leaky-imported", "snntorch-import", "spikingjelly"),
    ("spikingjelly", "lif", "spikingjelly", "nir-strict"),
    ("spikingjelly", "lif-decay-input", "spikingjelly", "snntorch-import"),
    ("spikingjelly", "if", "spikingjelly", "norse"),
    ("spikingjelly", "cuba", "spikingjelly", "snntorch"),
    ("norse", "lif-box", "norse", "spikingjelly"),
    ("norse", "lif-box-imported", "norse", "nir-strict"),
    ("norse", "lif", "norse", "nir-strict"),
    ("norse", "lif-imported", "norse", "nir-strict"),
    ("norse", "iaf", "norse", "nir-strict"),
    ("norse", "iaf-imported", "norse", "nir-strict"),
]
"""Framework, what was recorded, the semantics that means it, and one that does not."""


def differing(recording: Any, case: str, semantics: str, folder: Path) -> int:
    """How many of the recorded decisions are others under a semantics."""
    path = folder / "network.nir"
    path.write_bytes(recording[f"{case}.nir"].tobytes())
    network = read_network(path, semantics)
    x = recording["levels"] * np.float32(LEVEL)
    (spiking,) = simulate(network, x, STEPS).spikes.values()
    ours, theirs = (unpack(bits, (NEURONS,)) for bits in (spiking, recording[f"{case}.spikes"]))
    assert ours.shape == theirs.shape == (STEPS, SAMPLES, NEURONS)
    return int(np.count_nonzero(ours != theirs))


@pytest.mark.parametrize(("framework", "case", "semantics", "other"), CASES)
def test_the_semantics_gives_every_recorded_spike_and_another_does_not(
    framework: str, case: str, semantics: str, other: str, tmp_path: Path
) -> None:
    with np.load(GOLDEN / f"{framework}.npz") as recording:
        assert 0.05 < unpack(recording[f"{case}.spikes"], (NEURONS,)).mean() < 0.5
        assert differing(recording, case, semantics, tmp_path) == 0
        assert differing(recording, case, other, tmp_path) > 100


def test_each_recording_holds_the_cases_and_25600_decisions_of_each() -> None:
    assert STEPS * SAMPLES * NEURONS == 25_600
    for framework in ("snntorch", "spikingjelly", "norse"):
        with np.load(GOLDEN / f"{framework}.npz") as recording:
            found = {name.removesuffix(".nir") for name in recording if name.endswith(".nir")}
            assert found == {case for name, case, *_ in CASES if name == framework}


@pytest.mark.slow
@pytest.mark.skipif(PYTHON is None, reason="SNNPIPE_FOREIGN_A names no python with the frameworks")
@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "norse"])
def test_the_framework_does_today_what_was_recorded(framework: str, tmp_path: Path) -> None:
    out = tmp_path / "again.npz"
    command = [str(PYTHON), HERE / f"record_{framework}.py", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(GOLDEN / f"{framework}.npz") as old, np.load(out) as new:
        for name, case, semantics, _ in CASES:
            if name == framework:
                assert (old[f"{case}.spikes"] == new[f"{case}.spikes"]).all()
                assert differing(new, case, semantics, tmp_path) == 0


@pytest.mark.parametrize(
    ("semantics", "reason"), [("sinabs", "several spikes"), ("lava", "one step late")]
)
def test_what_is_not_run_is_refused_with_the_reason(
    semantics: str, reason: str, tmp_path: Path
) -> None:
    with (
        np.load(GOLDEN / "norse.npz") as recording,
        pytest.raises(RequestError, match=reason) as caught,
    ):
        differing(recording, "iaf", semantics, tmp_path)
    assert caught.value.code == "E_SEMANTICS"
