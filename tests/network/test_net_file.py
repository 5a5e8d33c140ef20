"""`.net` files: every shape and type that is read, against a second reading; every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from corpus import corpus
from hypothesis import given
from hypothesis import strategies as st
from net_files import f4, neuron, plain_run, write_net
from snnpipe.errors import RequestError
from snnpipe.network.hdf5 import Limits
from snnpipe.network.layers import Delay, Network
from snnpipe.network.net_file import NetReading, net_semantics, read_net
from snnpipe.network.net_remarks import in_netx
from snnpipe.network.net_weights import clipped, fitted
from snnpipe.network.neurons import IF, LIF, CubaLIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack

RNG = np.random.default_rng(23)
START = RNG.bit_generator.state
Layers = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same numbers whichever tests run before."""
    RNG.bit_generator.state = START


def weights(*shape: int, step: int = 2, most: int = 40) -> np.ndarray:
    """More of them excite than inhibit, so that something fires."""
    return f4(RNG.integers(-most // step // 2, most // step + 1, shape) * step)


def dense(out: int, inputs: int, **changes: Any) -> dict[str, Any]:
    fields = {"type": "dense", "shape": (out,), "weight": weights(out, inputs),
              "inFeatures": inputs, "outFeatures": out, "neuron": neuron()}  # fmt: skip
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def conv(out: int, inputs: int, shape: tuple[int, int], **changes: Any) -> dict[str, Any]:
    fields = {"type": "conv", "shape": (out, *shape), "weight": weights(out, inputs, 3, 2),
              "stride": (2, 1), "padding": (1, 0), "dilation": (1, 1), "groups": 1,
              "bias": f4(RNG.integers(-9, 9, out)), "neuron": neuron(type="LOIHI")}  # fmt: skip
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def spikes(shape: tuple[int, ...], steps: int = 9, share: float = 0.5) -> np.ndarray:
    return (RNG.random((steps, *shape)) < share).astype(np.int64)


def run(network: Network, x: np.ndarray) -> list[np.ndarray]:
    """(T, N) of every layer, as `plain_run` gives them."""
    trace = simulate(network, x.astype(np.float32), network.contract.steps)
    found = []
    for layer in network.layers:
        bits = trace.spikes.get(layer.name)
        values = trace.outputs if bits is None else unpack(bits, layer.shape)
        found.append(values[:, 0].reshape(len(values), -1))
    return found


def same(path: Path, x: np.ndarray, reading: NetReading | None = None) -> Network:
    """Both readings of a file run alike on one sample, and something fires."""
    network = read_net(path, reading).network
    given_ = x[None] if x.shape == network.input_shape else x[:, None]
    found = run(network, given_)
    expected = plain_run(path, x, fires_at=network.contract.compare == "ge")
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours, theirs)
    assert all(values.any() for values in expected)
    return network


INPUT = {"type": "input", "shape": (6,)}
IMAGE = {"type": "input", "shape": (2, 5, 4)}

FILES: dict[str, Callable[[], tuple[Layers, tuple[int, ...]]]] = {
    "dense": lambda: ([INPUT, dense(5, 6)], (6,)),
    "no input layer": lambda: ([dense(5, 6)], (6,)),
    "shape (N, 1, 1)": lambda: ([INPUT, dense(5, 6, shape=(5, 1, 1)), dense(3, 5)], (6,)),
    "shape (1, 1, N)": lambda: ([{**INPUT, "shape": (1, 1, 6)}, {"type": "flatten", "shape":
                                 (6, 1, 1)}, dense(5, 6, shape=(1, 1, 5))], (1, 1, 6)),
    "no flatten between rows": lambda: ([{**INPUT, "shape": (6, 1, 1)}, dense(5, 6)], (6, 1, 1)),
    "weights in a row": lambda: ([INPUT, dense(5, 6, weight=weights(30))], (6,)),
    "weights with trailing axes": lambda: ([INPUT, dense(5, 6, weight=weights(5, 6, 1, 1))], (6,)),
    "scalar bias": lambda: ([INPUT, dense(5, 6, bias=f4(7))], (6,)),
    "bias of one": lambda: ([INPUT, dense(5, 6, bias=np.array([3.0]))], (6,)),
    "bias": lambda: ([INPUT, dense(5, 6, bias=f4([3, -9, 0, 12, 26]))], (6,)),
    "current memory": lambda: ([INPUT, dense(5, 6, neuron=neuron(iDecay=1700, vDecay=300))], (6,)),
    "no leak": lambda: ([INPUT, dense(5, 6, neuron=neuron(vDecay=0))], (6,)),
    "no memory": lambda: ([INPUT, dense(5, 6, neuron=neuron(vDecay=4096))], (6,)),
    "odd weights": lambda: ([INPUT, dense(5, 6, weight=weights(5, 6, step=1))], (6,)),
    "one delay": lambda: ([INPUT, dense(5, 6, delay=f4(2))], (6,)),
    "a delay a neuron": lambda: ([INPUT, dense(5, 6, delay=f4([0, 3, 1, 0, 3]))], (6,)),
    "a delay an input": lambda: ([INPUT, dense(5, 6, delay=f4([0, 3, 1, 0, 3, 5]))], (6,)),
    "a delay a weight": lambda: ([INPUT, dense(5, 6, delay=f4(RNG.integers(0, 4, (5, 6))))], (6,)),
    "as many neurons as inputs": lambda: ([INPUT, dense(6, 6, delay=f4([0, 3, 1, 0, 3, 5]),
                                           bias=f4([30, 0, -3, 2, 9, 11]))], (6,)),
    "a loop": lambda: ([INPUT, dense(5, 6, type="dense_rec", weight_rec=weights(5, 5),
                        neuron=neuron(iDecay=900)), dense(3, 5)], (6,)),
    "a loop of odd weights": lambda: ([INPUT, dense(5, 6, type="dense_rec",
                                       weight_rec=weights(5, 5, step=1))], (6,)),
    "read-out": lambda: ([INPUT, dense(5, 6), dense(3, 5, neuron=None, bias=f4([1, -2, 3]))], (6,)),
    "convolutions": lambda: ([IMAGE, conv(4, 2, (3, 3)), conv(3, 4, (4, 3), padding=(2, 1),
                              dilation=(1, 2), stride=(1, 1), weight=weights(3, 4, 4, 2))],
                             (2, 5, 4)),
    "kernels with a trailing axis": lambda: ([IMAGE, conv(4, 2, (3, 3), weight=weights(4, 2, 3, 2,
                                              1), bias=f4(4))], (2, 5, 4)),
    "groups": lambda: ([IMAGE, conv(4, 1, (3, 3), groups=2, inChannels=2, outChannels=4,
                        kernelSize=(3, 2))], (2, 5, 4)),
    "one number for both axes": lambda: ([IMAGE, conv(4, 2, (3, 3), stride=2, padding=1)],
                                         (2, 5, 4)),
    "flatten": lambda: ([IMAGE, conv(4, 2, (3, 3)), {"type": "flatten", "shape": (1, 1, 36)},
                         dense(5, 36, delay=f4([0, 1, 0, 2, 0]))], (2, 5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("row", FILES)
@pytest.mark.parametrize("semantics", ["lava", "slayer"])
def test_every_form_runs_as_a_second_reading_says(row: str, semantics: str, tmp_path: Path) -> None:
    layers, shape = FILES[row]()
    path = write_net(tmp_path / "x.net", layers)
    network = same(path, spikes(shape), NetReading(semantics))
    assert network.contract.steps == 9
    assert (network.contract.compare, network.contract.input_coding) == (
        {"lava": "gt", "slayer": "ge"}[semantics], "events",
    )  # fmt: skip


def test_the_second_reading_sees_a_wrong_weight(tmp_path: Path) -> None:
    """The counter-test: a file that differs in one weight, in one delay, runs otherwise."""
    layers, shape = FILES["a delay a neuron"]()
    x = spikes(shape)
    one = write_net(tmp_path / "one.net", layers)
    for key, value in (("weight", layers[1]["weight"] + 6), ("delay", f4([0, 3, 1, 1, 3]))):
        other = write_net(tmp_path / "other.net", [layers[0], {**layers[1], key: value}])
        ours = run(read_net(one).network, x[:, None])
        assert not all(map(np.array_equal, ours, plain_run(other, x)))


def test_neurons_and_names(tmp_path: Path) -> None:
    layers = [INPUT, dense(5, 6), dense(4, 5, neuron=neuron(vDecay=0)),
              dense(3, 4, neuron=neuron(iDecay=1024)), dense(2, 3, neuron=None)]  # fmt: skip
    network = read_net(write_net(tmp_path / "x.net", layers)).network
    assert [layer.name for layer in network.layers] == ["layer1", "layer2", "layer3", "layer4"]
    lif, if_, cuba, readout = (layer.neuron for layer in network.layers)
    assert isinstance(lif, LIF)
    assert (lif.decay, lif.threshold) == (0.75, 25)
    assert isinstance(if_, IF)
    assert isinstance(cuba, CubaLIF)
    assert cuba.synaptic_decay == np.float32(3072 / 4096)
    assert isinstance(readout, Sum)
    assert net_semantics(network)["slayer"]["fires at"] == "v >= threshold"


# --- input neurons ---


def image_net(tmp_path: Path, shape: tuple[int, ...] = (2, 5, 4), **changes: Any) -> Path:
    first = {"type": "input", "shape": shape, "weight": f4([36]), "bias": f4(-5), "neuron":
             neuron(vThMant=20), **changes}  # fmt: skip
    second = conv(4, 2, (3, 3)) if len(shape) == 3 else dense(4, shape[0])
    return write_net(tmp_path / "image.net", [first, second])


@pytest.mark.parametrize("shape", [(2, 5, 4), (7,)])
def test_images_become_biases_as_the_file_says(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = image_net(tmp_path, shape)
    levels = RNG.integers(0, 257, shape)
    mantissas = np.rint(levels / 256 * 36 - 5).astype(np.int64)
    network = read_net(path).network
    found = run(network, network.frames(levels[None]))
    expected = plain_run(path, mantissas)
    assert all(map(np.array_equal, found, expected))
    assert all(values.any() for values in expected)
    driven = same(path, np.abs(mantissas), NetReading(drive="mantissas"))
    assert (driven.contract.input_scale, driven.contract.input_levels) == (1, 4095)


def test_the_usual_image_transform_is_netx_s(tmp_path: Path) -> None:
    first = {"type": "input", "shape": (7,), "neuron": neuron(vThMant=60)}
    path = write_net(tmp_path / "x.net", [first, dense(4, 7)])
    levels = RNG.integers(0, 257, (7,))
    network = read_net(path).network
    expected = plain_run(path, np.rint(levels / 4).astype(np.int64))
    assert all(map(np.array_equal, run(network, network.frames(levels[None])), expected))


def test_fractions_of_the_transform_are_kept_and_noted(tmp_path: Path) -> None:
    found = read_net(image_net(tmp_path, bias=f4(0.5)))
    assert found.remarks == (
        "layer 'layer0' makes biases with the weight 36 and the bias 0.5; netx cuts the fractions "
        "off",
    )


def test_biases_that_are_cut_are_noted(tmp_path: Path) -> None:
    found = read_net(image_net(tmp_path, weight=f4([5000])))
    assert found.remarks == (
        "layer 'layer0' makes biases of up to 4995 of an image; 13 bits hold 4095, beyond it they "
        "are cut",
    )
    assert read_net(image_net(tmp_path, weight=f4([4100]))).remarks == ()


# --- a real file ---


@pytest.mark.parametrize("semantics", ["lava", "slayer"])
def test_tinynet_runs_as_lava_dl_recorded_it(semantics: str) -> None:
    """lava-dl d825ac5, tests/lava/lib/dl/netx: input.npy, layer1.npy, output.npy (N, C, H, W, T);
    their first step is blank. Under >= the file runs otherwise: membranes do meet thresholds."""
    folder = corpus() / "lava_dl" / "tinynet"
    found = read_net(folder / "tiny.net", NetReading(semantics, steps=17, drive="mantissas"))
    assert found.remarks == ()
    mantissas = np.load(folder / "input_bias.npy").transpose(2, 1, 0)[None]
    network = found.network
    trace = simulate(network, network.frames(mantissas), 17)
    counts = {name: int(fired.sum()) for name, fired in trace.fired.items()}
    for layer, name in zip(network.layers, ("input", "layer1", "output"), strict=True):
        recorded = np.load(folder / f"{name}.npy")[..., 1:16]
        ours = np.moveaxis(unpack(trace.spikes[layer.name], layer.shape)[:15], 0, -1)
        assert (ours == recorded).all() == (semantics == "lava")
    exact = {"layer0": 7685, "layer1": 1833, "layer2": 105}
    assert ({name: counts[name] for name in exact} == exact) == (semantics == "lava")


def real(name: str) -> Path:
    """A folder of lava-dl 0.6.0's tests/lava/lib/dl/netx/gts, copied beside tinynet's."""
    folder = corpus() / "lava_dl" / name
    if not folder.is_dir():
        pytest.skip(f"{name} of lava-dl's test data is not in the corpus")
    return folder


def test_pilotnet_runs_as_lava_dl_recorded_it() -> None:
    """Each layer is a step later than the one before; 16 steps a sample."""
    folder = real("pilotnet_lif")
    network = read_net(folder / "network.net", NetReading(drive="mantissas")).network
    mantissas = np.load(folder / "image.npy").transpose(2, 1, 0)[None]
    trace = simulate(network, network.frames(mantissas), 16)
    names = ["input", *(f"conv-{n}" for n in range(5)), *(f"fc-{n}" for n in range(3))]
    for late, (layer, name) in enumerate(zip(network.layers, names, strict=False)):
        recorded = np.load(folder / f"{name}.npy").T[late : late + 16]
        ours = unpack(trace.spikes[layer.name], layer.shape)[:, 0]
        assert np.array_equal(ours, recorded)
        assert ours.any()


def test_ntidigits_runs_as_lava_dl_recorded_it() -> None:
    """Delays of up to 62 steps, currents with a memory; recorded 4 steps late."""
    folder = real("ntidigits")
    network = read_net(folder / "ntidigits.net", NetReading(layers=5, steps=500)).network
    x = np.load(folder / "input.npy").T[:500].reshape(500, 1, 1, 1, 64)
    outputs = simulate(network, x.astype(np.float32), 500).outputs[:, 0]
    recorded = np.load(folder / "output.npy").T
    assert np.array_equal(outputs[:496], recorded[4:500])
    assert outputs.sum() > 10_000


def test_the_file_s_own_steps_are_taken() -> None:
    found = read_net(corpus() / "lava_dl" / "tinynet" / "tiny.net").network
    assert (found.contract.steps, found.contract.dt) == (64, 1e-3)


# --- refusals ---


def change(index: int, **fields: Any) -> Callable[[Layers], Layers]:
    def edit(layers: Layers) -> Layers:
        layers[index] = {k: v for k, v in {**layers[index], **fields}.items() if v is not None}
        return layers

    return edit


def own(**changes: Any) -> Callable[[Layers], Layers]:
    return change(1, neuron=neuron(**changes))


REFUSED: dict[str, tuple[Callable[[Layers], Layers], str, str]] = {
    "average behind": (lambda x: [*x, {"type": "average", "shape": (2,)}], "E_UNSUPPORTED",
                       "/layer/3 is a layer of type 'average'.*--layers"),
    "pool": (change(1, type="pool"), "E_UNSUPPORTED", "/layer/1 is a layer of type 'pool'"),
    "a type nobody knows": (change(1, type="denze"), "E_UNSUPPORTED", "'denze': nobody knows"),
    "no type": (change(1, type=None), "E_PARAM", "/layer/1/type is missing"),
    "a number as type": (change(1, type=3), "E_PARAM", "/layer/1/type is no text"),
    "sigma-delta": (own(type="SDNN"), "E_UNSUPPORTED", "/layer/1/neuron is of type 'SDNN'"),
    "resonators": (own(type="RF_PHASE"), "E_UNSUPPORTED", "resonators"),
    "complex weights": (change(1, weight={"real": weights(5, 6), "imag": weights(5, 6)}),
                        "E_UNSUPPORTED", "complex weights"),
    "refractory": (own(refDelay=2), "E_UNSUPPORTED", "/layer/1/neuron/refDelay is 2"),
    "graded": (own(gradedSpike=True), "E_UNSUPPORTED", "gradedSpike is 1"),
    "an exponent": (own(wgtExp=2), "E_UNSUPPORTED", "wgtExp is 2"),
    "a norm's exponent": (own(weight_exp=-1.0), "E_UNSUPPORTED", "weight_exp is -1"),
    "no decay": (change(1, neuron={"type": "CUBA", "iDecay": 4096, "vThMant": 3}), "E_PARAM",
                 "/layer/1/neuron/vDecay is missing"),
    "a decay out of range": (own(iDecay=4097), "E_VALUE", "is 4097; expected 0 to 4096"),
    "a current that keeps all": (own(iDecay=0), "E_UNSUPPORTED", "iDecay 0"),
    "a threshold out of range": (own(vThMant=131072), "E_UNSUPPORTED", "vThMant is 131072"),
    "a neuron as data set": (change(1, neuron=3), "E_PARAM", "neuron is a data set"),
    "no neuron in between": (change(1, neuron=None), "E_UNSUPPORTED", "feeds other layers"),
    "weights that miss": (change(1, weight=None), "E_PARAM", "/layer/1/weight is missing"),
    "weights of another size": (change(1, weight=weights(4, 6)), "E_SHAPE", r"expected \[5, inp"),
    "weights of another input": (change(1, weight=weights(5, 7), inFeatures=7), "E_SHAPE",
                                r"receives shape \[6\]"),
    "half weights": (change(1, weight=weights(5, 6) + 0.5), "E_VALUE", "whole numbers"),
    "weights not finite": (change(1, weight=f4(np.full((5, 6), np.nan))), "E_VALUE", "nan"),
    "weights of 9 bits": (change(1, weight=f4(np.full((5, 6), 201)) * f4([[1], [-1], [1], [1],
                          [1]])), "E_RANGE", "/layer/1/weight holds 201"),
    "other features": (change(1, inFeatures=9), "E_SHAPE", "inFeatures is 9; the weights say 6"),
    "biases of another size": (change(1, bias=f4([1, 2])), "E_SHAPE", "/layer/1/bias has shape"),
    "a bias of 14 bits": (change(1, bias=f4(4096)), "E_RANGE", "bias mantissa"),
    "half a bias": (change(1, bias=f4(0.5)), "E_VALUE", "/layer/1/bias holds 0.5"),
    "delays of another size": (change(1, delay=f4([1, 2, 3])), "E_SHAPE", "/layer/1/delay has"),
    "a delay below 0": (change(1, delay=f4(-1)), "E_VALUE", "holds -1; expected 0 or more"),
    "half a delay": (change(1, delay=f4(1.5)), "E_VALUE", "/layer/1/delay holds 1.5"),
    "an input in between": (lambda x: [x[0], INPUT, x[1]], "E_LAYER", "/layer/1 is an input"),
    "a loop of another size": (change(1, type="dense_rec", weight_rec=weights(5, 4)), "E_SHAPE",
                               "weight_rec"),
    "shapes of two axes": (change(0, shape=(2, 3)), "E_SHAPE", "fed by the image"),
    "no shape": (change(1, shape=None), "E_PARAM", "/layer/1/shape is missing"),
    "no layers": (lambda _: [INPUT], "E_LAYER", "no neurons"),
    "a wrong flatten": (lambda x: [x[0], {"type": "flatten", "shape": (7,)}, x[1]], "E_SHAPE",
                        "comes in"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_refusals_name_the_place(row: str, tmp_path: Path) -> None:
    edit, code, text = REFUSED[row]
    path = write_net(tmp_path / "x.net", edit([dict(INPUT), dense(5, 6), dense(3, 5)]))
    with pytest.raises(RequestError, match=text) as caught:
        read_net(path)
    assert caught.value.code == code, caught.value.message
    assert caught.value.message.startswith(f"{path}: ")


IMAGES: dict[str, tuple[Layers, str, str]] = {
    "a convolution without an input": ([conv(4, 2, (3, 3))], "E_SHAPE", "input is open"),
    "a dense layer of an image": ([IMAGE, dense(5, 40)], "E_SHAPE", "expected a flatten"),
    "a convolution behind a flatten": (
        [IMAGE, {"type": "flatten", "shape": (40,)}, conv(4, 2, (3, 3))], "E_SHAPE", "behind"
    ),
    "another image behind": ([IMAGE, conv(4, 2, (3, 4))], "E_SHAPE", "gives"),
    "another kernel": ([IMAGE, conv(4, 2, (3, 3), kernelSize=(2, 3))], "E_SHAPE", "kernelSize"),
    "weights of three axes": ([IMAGE, conv(4, 2, (3, 3), weight=weights(4, 2, 3))],
                              "E_SHAPE", "height, width"),
    "weights of 10 bits": ([IMAGE, conv(4, 2, (3, 3), weight=weights(4, 2, 3, 2, most=400))],
                           "E_RANGE", "expected even numbers"),
}  # fmt: skip


@pytest.mark.parametrize("row", IMAGES)
def test_images_that_do_not_fit_are_refused(row: str, tmp_path: Path) -> None:
    layers, code, text = IMAGES[row]
    with pytest.raises(RequestError, match=text) as caught:
        read_net(write_net(tmp_path / "x.net", layers))
    assert caught.value.code == code, caught.value.message


def test_layers_can_be_cut_off(tmp_path: Path) -> None:
    layers = [INPUT, dense(5, 6), dense(3, 5), {"type": "average", "shape": (2,)}]
    path = write_net(tmp_path / "x.net", layers)
    found = read_net(path, NetReading(layers=3)).network
    assert [layer.name for layer in found.layers] == ["layer1", "layer2"]


def test_steps_are_asked_for_where_the_file_says_none(tmp_path: Path) -> None:
    path = write_net(tmp_path / "x.net", [INPUT, dense(5, 6)], steps=None)
    with pytest.raises(RequestError, match="--steps T") as caught:
        read_net(path)
    assert caught.value.code == "E_STEPS"
    assert read_net(path, NetReading(steps=5)).network.contract.steps == 5


def test_readings_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = write_net(tmp_path / "x.net", [INPUT, dense(5, 6)])
    with pytest.raises(RequestError, match="did you mean 'slayer'"):
        read_net(path, NetReading("slayr"))
    with pytest.raises(RequestError, match="driven by spikes"):
        read_net(path, NetReading(drive="mantissas"))


def test_graded_inputs_are_named(tmp_path: Path) -> None:
    path = write_net(tmp_path / "x.net", [INPUT, dense(5, 6, bias=f4(-40))])
    reading = NetReading(coding="direct", levels=3)
    network = read_net(path, reading).network
    x = RNG.integers(0, 4, (6,))
    found = run(network, network.frames(x[None]))
    assert np.array_equal(found[0], plain_run(path, np.stack([x] * 9))[0])
    assert network.contract.input_levels == 3


def test_groups_that_are_not_counted_are_refused(tmp_path: Path) -> None:
    path = write_net(tmp_path / "x.net", [INPUT, dense(5, 6)])
    with h5py.File(path, "a") as file:
        file.move("layer/1", "layer/first")
    with pytest.raises(RequestError, match=r"/layer holds 0, first; expected groups 0 to 1"):
        read_net(path)


def test_ten_layers_and_more_keep_their_order(tmp_path: Path) -> None:
    sizes = [6, 5, 4, 7, 3, 6, 5, 4, 7, 3, 6, 5, 4]
    layers = [dense(b, a, bias=f4(20)) for a, b in pairwise(sizes)]
    same(write_net(tmp_path / "x.net", [INPUT, *layers]), spikes((6,)))


# --- hostile files ---


def test_links_and_long_texts_are_refused(tmp_path: Path) -> None:
    path = write_net(tmp_path / "x.net", [INPUT, dense(5, 6)])
    with h5py.File(path, "a") as file:
        del file["layer/1/weight"]
        file["layer/1/weight"] = h5py.ExternalLink("other.h5", "weight")
    with pytest.raises(RequestError) as caught:
        read_net(path)
    assert caught.value.code == "E_LINK"
    path = write_net(tmp_path / "y.net", [INPUT, dense(5, 6, type=np.array([b"x" * 300]))])
    with pytest.raises(RequestError) as caught:
        read_net(path)
    assert caught.value.code == "E_DTYPE"


def test_delays_do_not_multiply_weights_without_end(tmp_path: Path) -> None:
    delays = np.arange(30).reshape(5, 6)
    path = write_net(tmp_path / "x.net", [INPUT, dense(5, 6, delay=delays)])
    with pytest.raises(RequestError, match="holds 30 different delays") as caught:
        read_net(path, limits=Limits(dataset_bytes=3000))
    assert caught.value.code == "E_LIMIT"


def test_bit_flips_end_in_a_request_error_or_a_network(tmp_path: Path) -> None:
    layers, _ = FILES["a delay a neuron"]()
    good = write_net(tmp_path / "good.net", layers).read_bytes()
    rng = np.random.default_rng(5)
    path, refused = tmp_path / "bad.net", 0
    for flips in [1] * 40 + [40] * 20:
        damaged = bytearray(good)
        for at in rng.integers(0, len(damaged), flips):
            damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_net(path)
        except RequestError:
            refused += 1
    assert 10 < refused < 60


# --- what netx makes of it ---

SEEN: list[tuple[Any, Any]] = [
    ([[-4, 0]], [[-2, 0]]),
    ([[-4, -2]], [[-2, -2]]),
    ([[4, -6], [10, 0]], [[4, -6], [10, 0]]),
    ([[3, -3], [1, 127]], [[3, -3], [1, 127]]),
    ([[201, -3]], [[201, -3]]),
    ([[300, -300]], [[254, -256]]),
    ([[255, 3]], [[255, 3]]),
    ([[272, 13]], [[0, 0]]),
]
"""Weights, and what `optimize_weight_bits` of lava-dl 0.6.0 and `clip_weights` and
`truncate_weights` of Lava 0.10.0 leave of them, both run in their own environment."""


@pytest.mark.parametrize(("ours", "theirs"), SEEN)
def test_netx_s_weights_are_known(ours: Any, theirs: Any) -> None:
    (found,) = in_netx(np.array(ours))
    assert found.tolist() == theirs


REMARKS: dict[str, tuple[dict[str, Any], str]] = {
    "no positive weight": ({"weight": f4(np.tile([-4, 0], (5, 3)))}, "netx runs .* otherwise"),
    "nothing but zeros": ({"weight": f4(np.zeros((5, 6)))}, "OverflowError"),
    "cut weights": ({"weight": weights(5, 6) * 11 - 100}, "are cut to what 8 bits reach"),
    "long delays": ({"delay": f4(70)}, "delays up to 70; netx cuts them at 62"),
    "delay and bias": ({"delay": f4(2), "bias": f4(3)}, "in training the output waits"),
    "delay and loop": ({"delay": f4(2), "type": "dense_rec", "weight_rec": weights(5, 5)},
                       "delays and a loop"),
    "a read-out with a bias": ({"neuron": None, "bias": f4(3)}, "takes the bias once"),
    "a silent neuron": ({"neuron": neuron(vDecay=0, vThMant=131071)}, "read as the sum"),
    "trailing axes": ({"weight": weights(5, 6, 1)}, "trailing axes, which netx cannot load"),
    "more than is read": ({"colour": 3}, "/layer/1/colour is in the file"),
}  # fmt: skip


@pytest.mark.parametrize("row", REMARKS)
def test_what_netx_would_run_otherwise_is_said(row: str, tmp_path: Path) -> None:
    changes, text = REMARKS[row]
    fields = dense(5, 6, **{k: v for k, v in changes.items() if v is not None})
    if "neuron" in changes and changes["neuron"] is None:
        del fields["neuron"]
    found = read_net(write_net(tmp_path / "x.net", [INPUT, fields]))
    assert len(found.remarks) == 1, found.remarks
    assert re.search(text, found.remarks[0])


def test_an_honest_file_has_no_remarks(tmp_path: Path) -> None:
    layers, _ = FILES["flatten"]()
    assert read_net(write_net(tmp_path / "x.net", layers)).remarks == ()


def test_what_netx_asks_for_is_said(tmp_path: Path) -> None:
    layers = [IMAGE, conv(4, 2, (3, 3), dilation=None)]
    found = read_net(write_net(tmp_path / "x.net", layers))
    assert found.remarks == ("/layer/1 says nothing of its dilation; netx asks for it",)


def test_delays_of_a_convolution_run_and_are_noted(tmp_path: Path) -> None:
    layers = [IMAGE, conv(4, 2, (3, 3), delay=f4([0, 2, 0, 1]), bias=None)]
    found = read_net(write_net(tmp_path / "x.net", layers))
    assert found.remarks == ("layer 'layer1' has delays, which netx leaves out of convolutions",)
    delays = [op.steps for _, _, op in found.network.operations() if isinstance(op, Delay)]
    assert delays == [1, 2]


@given(st.integers(0, 10_000), st.sampled_from([3, 40, 127, 200, 256, 300]), st.integers(1, 3))
def test_held_weights_are_the_file_s_own(seed: int, most: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-most, most + 1, (2, 3)) // step * step
    mixed = whole.min() < 0 < whole.max()
    held = range(-256, 255, 2) if mixed else range(-255, 256)
    fits = [{value * 2.0**exponent for value in held} for exponent in (0, -1, 1)]
    if not any(set(whole.ravel().tolist()) <= values for values in fits):
        with pytest.raises(RequestError, match="expected even numbers"):
            fitted(whole)
    else:
        found, exponent = fitted(whole)
        assert (found * 2.0**exponent == whole).all()
        assert (clipped(whole) == whole).all()
