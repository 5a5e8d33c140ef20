"""Target `netx`: what is written runs as what it was written from; the rest is refused by layer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from corpus import corpus
from net_files import f4, plain_run
from net_networks import net_inputs, net_network
from snnpipe.errors import RequestError
from snnpipe.export.write import write_targets
from snnpipe.files import read_manifest
from snnpipe.network.graph import network_sha256
from snnpipe.network.layers import Delay, Dense, Layer, Network, SumPool, Synapse
from snnpipe.network.net_file import NetReading, read_net
from snnpipe.network.neurons import LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack
from snnpipe.verify.recorded import hold
from snnpipe.verify.recording import read_recording
from snnpipe.verify.verdict import Outcome


def write(network: Network, folder: Path, **options: str) -> Path:
    return write_targets(network, ["netx"], folder, options=options)["netx"] / "network.net"


def renamed(path: Path) -> dict[str, str]:
    """The file's layers to the network's."""
    return {f"layer{k}": name for k, name in read_manifest(path.parent)["layers"].items()}


@pytest.mark.parametrize("seed", range(30))
def test_what_is_written_runs_as_the_network(seed: int, tmp_path: Path) -> None:
    network = net_network(seed)
    path = write(network, tmp_path)
    back, names = read_net(path).network, renamed(path)
    x = net_inputs(network, seed)
    ours = simulate(network, network.frames(x), 12)
    theirs = simulate(back, back.frames(x), 12)
    assert np.array_equal(ours.outputs, theirs.outputs)
    assert set(names.values()) == set(network.by_name)
    for name, bits in theirs.spikes.items():
        assert np.array_equal(ours.spikes[names[name]], bits)
    for layer, plain in zip(network.layers, plain_run(path, x[0]), strict=True):
        if not isinstance(layer.neuron, Sum):  # written as a neuron that adds up and never fires
            seen = unpack(ours.spikes[layer.name], layer.shape)[:, 0]
            assert np.array_equal(seen.reshape(plain.shape), plain)
    assert back.contract == replace(network.contract, dt=1e-3, arithmetic=back.contract.arithmetic)
    assert ours.outputs.any()
    assert write(network, tmp_path / "again").read_bytes() == path.read_bytes()
    assert network_sha256(read_net(write(back, tmp_path / "back")).network) == network_sha256(back)


def test_the_comparison_would_see_another_weight(tmp_path: Path) -> None:
    network = net_network(0)
    path = write(network, tmp_path)
    x = net_inputs(network, 0)
    with h5py.File(path, "a") as file:
        weight = file["layer/1/weight"]
        weight[...] = weight[()] + 10
    other = read_net(path).network
    ours, theirs = (simulate(n, n.frames(x), 12).outputs for n in (network, other))
    assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize("drive", ["image", "mantissas"])
def test_a_real_file_comes_back_as_it_was(drive: Any, tmp_path: Path) -> None:
    reading = NetReading(steps=17, drive=drive)
    network = read_net(corpus() / "lava_dl" / "tinynet" / "tiny.net", reading).network
    path = write(network, tmp_path)
    back = read_net(path, NetReading(drive=drive)).network
    assert network_sha256(back) == network_sha256(network)
    assert back.contract == network.contract
    remarks = read_manifest(path.parent)["remarks"]
    assert [text.split(":")[0] for text in remarks] == (
        ["layer 'layer0' is written as input neurons"] if drive == "mantissas" else []
    )


def test_the_file_is_what_slayer_would_write(tmp_path: Path) -> None:
    network = read_net(corpus() / "lava_dl" / "tinynet" / "tiny.net").network
    with h5py.File(write(network, tmp_path), "r") as file:
        layer = file["layer/1"]
        assert layer["type"].dtype == np.dtype("S10")
        assert layer["type"].shape == (1,)
        assert layer["neuron/type"][()] == b"CUBA"
        assert layer["weight"].dtype == layer["bias"].dtype == np.float32
        assert layer["stride"].dtype == np.int64
        assert {k: int(layer["neuron"][k][()]) for k in ("iDecay", "vDecay", "vThMant")} == {
            "iDecay": 4096, "vDecay": 1024, "vThMant": 25,
        }  # fmt: skip
        assert int(file["simulation/tSample"][()]) == 64


# --- refusals ---


def dense(name: str, source: str, out: int, inputs: int, **changes: Any) -> Layer:
    weight = f4(np.random.default_rng(len(name)).integers(-9, 20, (out, inputs)) * 2)
    chain = changes.pop("chain", (Dense(f"{name}.w", weight),))
    return Layer(name, changes.pop("neuron", LIF(f4(0.5), f4(30))), (out,),
                 (Synapse(source, chain), *changes.pop("more", ())))  # fmt: skip


def two(**changes: Any) -> Network:
    base = net_network(1).contract
    contract = replace(base, arithmetic=replace(base.arithmetic, bias_exponents={"b": 0}))
    layers = (dense("a", "input", 5, 7), dense("b", "a", 4, 5, **changes))
    return Network("input", (7,), layers, "b", contract)


def w(name: str, out: int, inputs: int, step: int = 2) -> Dense:
    rng = np.random.default_rng(7)
    return Dense(name, f4(rng.integers(-9, 20, (out, inputs)) * step))


REFUSED: dict[str, tuple[Callable[[], Network], str]] = {
    "a skip": (lambda: two(more=(Synapse("input", (w("s", 4, 7),)),)), "past the layer in front"),
    "no weights": (lambda: Network("input", (7,), (dense("a", "input", 7, 7, chain=()),), "a",
                                   two().contract), "give the synapse weights"),
    "two maps": (lambda: two(chain=(w("p", 6, 5), w("q", 4, 6))), "'q' stands behind"),
    "two of one source": (lambda: two(more=(Synapse("a", (w("s", 4, 5),)),)), "at two delays"),
    "decays of their own": (lambda: two(neuron=LIF(f4([0.5, 0, 0, 0]), f4(9))), "different decays"),
    "thresholds of their own": (lambda: two(neuron=LIF(f4(0.5), f4([9, 8, 9, 9]))),
                                "different thresholds"),
    "a long delay": (lambda: two(chain=(Delay("d", 63), w("s", 4, 5))), "waits 63 steps"),
    "a late loop": (lambda: two(more=(Synapse("b", (Delay("d", 2), w("s", 4, 4))),)),
                    "a loop and delays"),
    "half biases": (lambda: two(chain=(replace(w("s", 4, 5), bias=f4([0.5, 1, 1, 1])),)),
                    "has the bias 32/64"),
    "only inhibition": (lambda: two(chain=(Dense("s", f4([[-4, 0, 0, 0, 0]] * 4)),)),
                        "netx would run .* the first -4 as -2"),
    "zeros": (lambda: two(chain=(Dense("s", f4(np.zeros((4, 5)))),)), "netx could not load"),
    "a sum in between": (lambda: replace(two(), layers=(
        dense("a", "input", 5, 7, neuron=Sum()), dense("b", "a", 4, 5))), "passes its sum on"),
    "an output in between": (lambda: replace(two(), output="a"), "'a' is the output"),
    "at the threshold": (lambda: _contract(compare="ge"), "says ge and value"),
    "subtraction": (lambda: _contract(reset="subtract"), "says gt and subtract"),
    "an input that counts in parts": (lambda: _contract(input_scale=0.5), "counts in 0.5"),
    "a host elsewhere": (lambda: _host(0), "exponent 0, the format's is 6"),
}  # fmt: skip


def _contract(**changes: Any) -> Network:
    network = two()
    return network.with_contract(replace(network.contract, **changes))


def _host(exponent: int) -> Network:
    base = two().contract
    arithmetic = replace(base.arithmetic, bias_exponents={"a": exponent}, host_scale={"a": 3})
    contract = replace(base, arithmetic=arithmetic, input_coding="direct", input_levels=255)
    return replace(two(), contract=contract)


@pytest.mark.parametrize("row", REFUSED)
def test_refusals_name_the_layer(row: str, tmp_path: Path) -> None:
    make, text = REFUSED[row]
    with pytest.raises(RequestError, match=text) as caught:
        write(make(), tmp_path)
    assert caught.value.code == "E_UNSUPPORTED"
    assert not (tmp_path / "netx").exists()


def test_floats_and_pools_are_refused(tmp_path: Path) -> None:
    network = two()
    with pytest.raises(RequestError, match="--target lava, then"):
        write(
            network.with_contract(replace(net_network(1).contract, arithmetic=_floats())), tmp_path
        )
    pool = Layer("a", LIF(f4(0.5), f4(3)), (2, 3, 2), (Synapse("input", (SumPool("p", (2, 2),
                 (2, 2)),)),))  # fmt: skip
    pooled = Network("input", (2, 6, 4), (pool,), "a", network.contract)
    with pytest.raises(RequestError, match=r"'p' \(SumPool, layer 'a'\)"):
        write(pooled, tmp_path)


def _floats() -> Any:
    from snnpipe.network.contract import Float32

    return Float32()


def test_biases_are_rounded_where_that_is_asked_for(tmp_path: Path) -> None:
    network = two(chain=(replace(w("s", 4, 5), bias=f4([0.5, 1.25, -3.75, 2])),))
    path = write(network, tmp_path, biases="rounded")
    with h5py.File(path, "r") as file:
        assert file["layer/2/bias"][()].tolist() == [0, 1, -4, 2]
    found = read_manifest(path.parent)
    assert found["biases_rounded"] == ["b"]
    assert "rounded to whole units" in found["remarks"][0]
    exact = two(chain=(replace(w("s", 4, 5), bias=f4([1, 0, -3, 2])),))
    assert not read_manifest(write(exact, tmp_path, biases="rounded").parent)["biases_rounded"]


def test_currents_of_the_host_become_input_neurons(tmp_path: Path) -> None:
    network = _host(6)
    path = write(network, tmp_path)
    found = read_manifest(path.parent)
    assert found["read_with"]["drive"] == "mantissas"
    assert "the host computes their bias mantissas" in found["remarks"][0]
    back = read_net(path, NetReading(drive="mantissas")).network
    assert back.input_shape == (5,)


# --- lava-dl's own reader, under Lava's own runtime ---

NETX = Path(__file__).parents[1] / "netx_run.py"


@pytest.fixture(scope="session")
def lava_python() -> Path:
    """The interpreter of the private environment; skipped where it is not, or has no netx."""
    folder = os.environ.get("SNNPIPE_LAVA")
    python = Path(folder, "bin", "python") if folder else None
    if python is None or not python.is_file():
        pytest.skip("there is no private Lava environment (SNNPIPE_LAVA; snnpipe lava setup)")
    asked = subprocess.run([python, "-c", "import lava.lib.dl.netx.blocks"], check=False)
    if asked.returncode:
        pytest.skip("the private Lava environment has no netx (snnpipe lava setup --with-netx)")
    return python


def in_netx(python: Path, path: Path, given: np.ndarray, network: Network, tmp: Path) -> Any:
    """Verdict on what netx recorded of one sample; ``given`` in Lava's axes."""
    np.save(tmp / "given.npy", given)
    drive = "mantissas" if network.contract.input_coding == "direct" else "spikes"
    steps = str(network.contract.steps)
    done = subprocess.run(
        [python, NETX, path, tmp / "given.npy", tmp / "seen.npz", steps, drive],
        capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp / "seen.npz") as seen:
        spiking = [n for n, x in enumerate(network.layers) if not isinstance(x.neuron, Sum)]
        named = {network.layers[n].name: seen[str(n)] for n in spiking}
    np.savez(tmp / "named.npz", **named)
    return named, tmp / "named.npz"


@pytest.mark.lava
@pytest.mark.parametrize("seed", range(8))
def test_netx_runs_the_file_with_equal_spikes(seed: int, lava_python: Path, tmp_path: Path) -> None:
    network = net_network(seed)
    path = write(network, tmp_path)
    back = read_net(path).network
    x = net_inputs(network, seed)[:1]
    image = len(network.input_shape) == 3
    given = x[0].transpose(3, 2, 1, 0) if image else x[0].T
    named, file = in_netx(lava_python, path, given, back, tmp_path)
    axes = "whct" if image else "nt"
    for name in named:
        own = axes if back.layer(name).shape[1:] else "nt"
        arrow = hold(back, x, read_recording(file, back, own, name))
        assert arrow.verdict.outcome is Outcome.PASSED, arrow.verdict.sentence
    changed = dict(named)
    last = list(named)[-1]
    changed[last] = 1 - named[last]
    np.savez(tmp_path / "wrong.npz", **changed)
    wrong = hold(back, x, read_recording(tmp_path / "wrong.npz", back, None if len(
        back.layer(last).shape) > 1 else "nt", last))  # fmt: skip
    assert wrong.verdict.outcome is Outcome.FAILED


@pytest.mark.lava
def test_netx_runs_tinynet_as_we_do(lava_python: Path, tmp_path: Path) -> None:
    folder = corpus() / "lava_dl" / "tinynet"
    reading = NetReading(steps=17, drive="mantissas")
    network = read_net(folder / "tiny.net", reading).network
    path = write(network, tmp_path)
    mantissas = np.load(folder / "input_bias.npy")
    _, file = in_netx(lava_python, path, mantissas, network, tmp_path)
    arrow = hold(network, mantissas.transpose(2, 1, 0)[None], read_recording(file, network, "whct"))
    assert arrow.verdict.outcome is Outcome.PASSED, arrow.verdict.sentence
    assert "'layer1' 1, 'layer2' 2" in arrow.verdict.sentence
    assert sum(arrow.differences.spikes.values()) == 7685 + 1833 + 105
