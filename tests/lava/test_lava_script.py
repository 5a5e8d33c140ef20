"""The script in the Lava artefact: plain Lava, equal spikes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe import plugins
from snnpipe.deploy.lava.environment import default_folder, read_environment
from snnpipe.export.lava_script import SCRIPT, write_script
from snnpipe.export.quantise import Settings, quantise
from snnpipe.network.contract import Contract
from snnpipe.network.grid import snap
from snnpipe.network.layers import AvgPool, Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF, CubaLIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import pack, predictions


def one(value: float) -> np.ndarray:
    return np.float32(value)


def drawn(seed: int, *shape: int, scale: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.05, scale, shape).astype(np.float32)


def network(coding: Any = "direct") -> Network:
    """Two convolutions, a skip past the second, a recurrent layer and a read-out."""
    leaky = LIF(one(0.25), one(0.5))
    skip = Conv("skip", drawn(3, 4, 4, 3, 3, scale=0.1), None, padding=(1, 1))
    conv1 = Conv("w1", drawn(1, 4, 2, 3, 2), drawn(11, 4), (2, 1), (1, 0))
    conv2 = Conv("w2", drawn(2, 4, 2, 3, 3), drawn(12, 4), (1, 1), (1, 1), (1, 1), 2)
    layers = (
        Layer("a", leaky, (4, 4, 4), (Synapse("input", (conv1,)),)),
        Layer("b", leaky, (4, 4, 4), (Synapse("a", (conv2,)),)),
        Layer("c", leaky, (4, 4, 4), (
            Synapse("b", (Conv("w3", drawn(4, 4, 4, 1, 1)),)), Synapse("a", (skip,))
        )),
        Layer("d", CubaLIF(one(0.5), one(0.25), one(1.0)), (9,), (
            Synapse("c", (Flatten("flat"), Dense("w4", drawn(5, 9, 64, scale=0.2), drawn(13, 9)))),
            Synapse("d", (Dense("back", drawn(6, 9, 9)),)),
        )),
        Layer("out", Sum(), (3,), (Synapse("d", (Dense("w5", drawn(7, 3, 9), drawn(14, 3)),)),)),
    )  # fmt: skip
    scale, levels = (1 / 256, 255) if coding == "direct" else (1.0, 3)
    contract = Contract(3, input_coding=coding, input_scale=scale, input_levels=levels)
    return snap(Network("input", (2, 7, 5), layers, "out", contract))


@pytest.mark.lava
@pytest.mark.parametrize("coding", ["direct", "events"])
def test_the_script_gives_the_reference_spikes(coding: str, tmp_path: Path) -> None:
    environment = read_environment(default_folder())
    if environment is None:
        pytest.skip("Lava is not set up: snnpipe lava setup")
    integer, _ = quantise(network(coding), Settings(8))
    assert write_script(integer, tmp_path).file == SCRIPT
    stored = np.random.default_rng(1).integers(
        0, integer.contract.input_levels + 1, (5, *integer.stored_shape)
    )
    truth = simulate(integer, integer.frames(stored), 3)
    np.save(tmp_path / "inputs.npy", stored.astype(np.uint8))
    done = subprocess.run(
        [environment.interpreter, "-B", SCRIPT, "inputs.npy"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    chosen = predictions(truth.outputs)[-1]
    assert done.stdout.splitlines() == [f"{n} {k}" for n, k in enumerate(chosen)]
    with np.load(tmp_path / "spikes.npz") as found:
        assert set(found) == {"outputs", *truth.spikes}
        assert (found["outputs"] == truth.outputs).all()
        for name, bits in truth.spikes.items():
            assert bits.any(), name
            assert (pack(found[name]) == bits).all(), name
    wrong = subprocess.run(
        [environment.interpreter, "-B", SCRIPT, "inputs.npy", "--layers", "a,liff"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "no layer liff; expected some of a, b, c, d" in wrong.stderr


def test_what_cannot_be_wired_has_a_remark_and_no_script(tmp_path: Path) -> None:
    integer, _ = quantise(network(), Settings(8))
    back = Synapse("d", (Dense("loop", np.full((9, 9), 2, np.float32)),))
    looped = Layer("e", LIF(one(0.25), one(90.0)), (9,), (back,))
    closing = Synapse("e", (Dense("ring", np.full((9, 9), 2, np.float32)),))
    ring = tuple(
        replace(x, synapses=(*x.synapses, closing)) if x.name == "d" else x for x in integer.layers
    )
    made = write_script(replace(integer, layers=(*ring[:-1], looped, ring[-1])), tmp_path)
    assert made.file is None
    assert "loop" in made.remarks[0]
    pooled = integer.layers[0].synapses[0].operations[0]
    first = replace(
        integer.layers[0],
        shape=(4, 3, 4),
        synapses=(Synapse("input", (AvgPool("mean", (2, 1), (1, 1)), pooled)),),
    )
    short = replace(integer, layers=(first, Layer("out", Sum(), (3,), (
        Synapse("a", (Flatten("flat"), Dense("w5", np.full((3, 48), 2, np.float32)))),
    ))))  # fmt: skip
    arithmetic: Any = integer.contract.arithmetic
    bare = replace(arithmetic, bias_exponents={"a": 7})
    made = write_script(short.with_contract(short.contract.with_arithmetic(bare)), tmp_path)
    assert "'mean' (AvgPool)" in made.remarks[0]
    assert not list(tmp_path.iterdir())


def test_the_target_writes_it(tmp_path: Path) -> None:
    target = plugins.load("targets", "lava")
    chosen = {name: values[0] for name, values in target.options.items()}
    facts = target.write(network(), tmp_path, chosen)
    assert facts["script"] == SCRIPT
    assert not [remark for remark in facts["remarks"] if SCRIPT in remark]
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"network.nir", "plan.json", "weights.npz", SCRIPT}


def test_the_plan_says_what_the_script_reads(tmp_path: Path) -> None:
    integer, _ = quantise(network(), Settings(4))
    write_script(integer, tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [host["layer"] for host in plan["host"]] == ["a"]
    assert (plan["steps"], plan["input_scale"], plan["depth"]) == (3, 1 / 256, 4)
    assert [p["name"] for p in plan["populations"]] == ["a", "b", "c", "d", "a+1"]
