"""Recordings from elsewhere: equal, late, wrong at a named place, or not readable as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from net_networks import net_inputs, net_network
from small_network import small_network
from snnpipe.errors import RequestError
from snnpipe.network.axes import arranged, orders
from snnpipe.network.layers import Network
from snnpipe.network.neurons import Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack
from snnpipe.verify.chain import Arrow
from snnpipe.verify.recorded import hold
from snnpipe.verify.recording import read_recording
from snnpipe.verify.ties import ties
from snnpipe.verify.verdict import Outcome, Strength

NETWORK = net_network(4)
X = net_inputs(NETWORK, 4)


def spikes(network: Network = NETWORK, x: np.ndarray = X) -> dict[str, np.ndarray]:
    """(T, B, *shape) of every layer that spikes, and the read-out's values."""
    trace = simulate(network, network.frames(x), network.contract.steps)
    found = {k: unpack(bits, network.layer(k).shape) for k, bits in trace.spikes.items()}
    if isinstance(network.layer(network.output).neuron, Sum):
        found[network.output] = trace.outputs
    return found


def judged(path: Path, x: np.ndarray = X, network: Network = NETWORK, **named: Any) -> Arrow:
    return hold(network, x, read_recording(path, network, **named))


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def test_the_network_has_what_these_tests_need() -> None:
    assert [len(layer.shape) for layer in NETWORK.layers] == [3, 1, 1]
    assert isinstance(NETWORK.layers[-1].neuron, Sum)
    assert all(values.any() for values in spikes().values())


def test_all_layers_equal(tmp_path: Path) -> None:
    arrow = judged(saved(tmp_path / "all.npz", spikes()))
    assert (arrow.verdict.outcome, arrow.strength) == (Outcome.PASSED, Strength.PROVEN)
    decisions = sum(x.size * 12 * 2 for x in NETWORK.layers[:-1])
    assert f"identical on 2 samples: {decisions:,} spike decisions, 72 outputs" in (
        arrow.verdict.sentence
    )
    assert "late" not in arrow.verdict.sentence
    assert arrow.differences is not None
    assert arrow.differences.none
    assert arrow.differences.outputs_compared == 72


def test_one_layer_and_fewer_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", spikes()["dense0"][:, :1])
    arrow = judged(tmp_path / "one.npy", axes="tbn", layer="dense0")
    assert arrow.verdict.outcome is Outcome.PASSED
    assert "identical on 1 samples" in arrow.verdict.sentence


@pytest.mark.parametrize("late", [1, 2, 3])
def test_late_by_layers(late: int, tmp_path: Path) -> None:
    """Every layer a step later than the one before, as Lava's pipeline hands on."""
    shifted = {}
    for index, (name, values) in enumerate(spikes().items()):
        steps = late + (index if late < 3 else 0)
        front = np.zeros((steps, *values.shape[1:]), values.dtype)
        shifted[name] = np.concatenate([front, values])[:12]
    arrow = judged(saved(tmp_path / "late.npz", shifted))
    assert arrow.verdict.outcome is Outcome.PASSED, arrow.verdict.sentence
    said = [late + (index if late < 3 else 0) for index in range(3)]
    words = ", ".join(f"'{x.name}' {n}" for x, n in zip(NETWORK.layers, said, strict=True))
    assert f"late, in steps: {words}" in arrow.verdict.sentence


def test_what_no_step_of_the_reference_belongs_to_is_counted(tmp_path: Path) -> None:
    values = spikes()["conv"]
    before, behind = values[10:], values[4:5]
    np.save(tmp_path / "x.npy", np.concatenate([before, values, behind]))
    arrow = judged(tmp_path / "x.npy", axes="tbchw", layer="conv")
    assert arrow.verdict.outcome is Outcome.PASSED
    counted = f"{before.sum()} values before the reference's first step and {behind.sum()} behind"
    assert counted in arrow.verdict.sentence
    assert before.any()
    assert behind.any()


@pytest.mark.parametrize("late", [0, 2])
def test_the_first_wrong_spike_is_named(late: int, tmp_path: Path) -> None:
    arrays = spikes()
    for name, values in arrays.items():
        front = np.zeros((late, *values.shape[1:]), values.dtype)
        arrays[name] = np.concatenate([front, values])
    arrays["conv"][7 + late, 1, 2, 0, 1] ^= 1
    arrays["dense0"][3 + late, 0, 1] ^= 1  # earlier in time, but in a later layer
    arrow = judged(saved(tmp_path / "x.npz", arrays))
    assert arrow.verdict.outcome is Outcome.FAILED
    assert arrow.differences is not None
    first = arrow.differences.first
    assert first is not None
    assert (first.layer, first.sample, first.step, first.neuron) == ("conv", 1, 7, (2, 0, 1))
    membranes: list[float] = []

    def watch(name: str, step: int, membrane: np.ndarray, _: np.ndarray) -> None:
        if (name, step) == ("conv", 7):
            membranes.append(float(membrane[1, 2, 0, 1]))

    simulate(NETWORK, NETWORK.frames(X), 12, watch=watch)
    assert first.membrane == membranes[0]
    assert "sample 1, layer 'conv', step 8, neuron [2, 0, 1]: spike" in arrow.verdict.sentence
    assert arrow.differences.changed == {"conv": 1, "dense0": 1}


def test_a_wrong_output_is_named(tmp_path: Path) -> None:
    arrays = spikes()
    arrays["out"][5, 1, 2] += 1
    arrow = judged(saved(tmp_path / "x.npz", arrays))
    assert arrow.verdict.outcome is Outcome.FAILED
    assert "layer 'out', step 6, neuron [2]: output" in arrow.verdict.sentence


def test_silence_says_nothing_and_is_never_late(tmp_path: Path) -> None:
    """All layers silent in reference and recording; then the recording alone is silent."""
    np.save(tmp_path / "x.npy", np.zeros((12, 2, *NETWORK.layers[0].shape)))
    arrow = judged(tmp_path / "x.npy", axes="tbchw", layer="conv")
    assert arrow.verdict.outcome is Outcome.FAILED


def test_floats_off_the_grid_are_not_decided(tmp_path: Path) -> None:
    network = small_network()
    frames = np.random.default_rng(0).random((5, *network.input_shape)).astype(np.float32)
    arrays = spikes(network, frames)
    path = saved(tmp_path / "x.npz", arrays)
    arrow = judged(path, frames, network)
    assert (arrow.verdict.outcome, arrow.strength) == (Outcome.PASSED, Strength.MEASURED)
    name = next(iter(arrays))
    arrays[name].flat[0] = 1 - arrays[name].flat[0]
    arrow = judged(saved(path, arrays), frames, network)
    assert arrow.verdict.outcome is Outcome.COULD_NOT_RUN
    assert "rounding may be all of it" in arrow.verdict.sentence


# --- axes ---


@pytest.mark.parametrize("axes", ["tbchw", "bchwt", "tbn", "bnt", "wthcb"])
def test_axes_are_read_as_they_are_named(axes: str, tmp_path: Path) -> None:
    values = spikes()["conv"]
    flat = "n" in axes
    own = "tbn" if flat else "tbchw"
    start = values.reshape(12, 2, -1) if flat else values
    np.save(tmp_path / "x.npy", start.transpose([own.index(letter) for letter in axes]))
    arrow = judged(tmp_path / "x.npy", axes=axes, layer="conv")
    assert arrow.verdict.outcome is Outcome.PASSED
    assert f"axes read as {axes}" in arrow.verdict.sentence


def test_the_order_of_axes_is_found_where_only_one_fits() -> None:
    shape = (4, 3, 2)
    assert orders(np.zeros((9, 5, 4, 3, 2)), shape) == ["tbchw"]
    assert orders(np.zeros((5, 4, 3, 2, 9)), shape) == ["bchwt"]
    assert orders(np.zeros((2, 3, 4, 9)), shape) == ["whct"]
    assert orders(np.zeros((9, 24)), shape) == ["tn"]
    assert orders(np.zeros((9, 9)), (9,)) == ["nt", "tn"]
    assert not orders(np.zeros((9, 23)), shape)


def test_arrays_are_arranged() -> None:
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = arranged(values, "wthc", (5, 4, 2))
    assert found.shape == (3, 1, 5, 4, 2)
    assert found[1, 0, 4, 2, 0] == values[0, 1, 2, 4]
    for axes, text in (("hcw", "has 4 axes"), ("wthh", "each letter"), ("wtch", "has 4 elements"),
                       ("wthx", "each letter")):  # fmt: skip
        with pytest.raises(RequestError, match=text):
            arranged(values, axes, (5, 4, 2))


def test_an_order_that_could_be_two_is_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 4)))
    network = replace(NETWORK, output="dense0", layers=NETWORK.layers[:2])
    size = network.layer("dense0").size
    np.save(tmp_path / "x.npy", np.zeros((size, size)))
    with pytest.raises(RequestError, match="can be in the order nt or tn") as caught:
        read_recording(tmp_path / "x.npy", network)
    assert caught.value.code == "E_AXES"


# --- what is no recording ---

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no array": ({}, "it holds no array"),
    "another name": ({"conf": np.zeros((12, 2))}, "did you mean 'conv'"),
    "another shape": ({"conv": np.zeros((12, 2, 9, 9, 9))}, "no usual order of axes fits"),
    "numbers in place of spikes": ({"dense0": np.full((12, 2, NETWORK.layers[1].size), 2)},
                                   "holds 2; expected spikes"),
    "texts": ({"conv": np.array(["a"])}, "expected numbers"),
    "bits of another size": ({"spikes.conv": np.zeros((12, 2, 99), np.uint8)}, "a bit for each"),
    "other steps": ({"out": np.zeros((11, 2, 3)), "spikes.conv": np.zeros(
        (12, 2, -(-NETWORK.layers[0].size // 8)), np.uint8)}, "steps and samples differ"),
}  # fmt: skip


@pytest.mark.parametrize("row", WRONG)
def test_what_is_no_recording_is_refused(row: str, tmp_path: Path) -> None:
    arrays, text = WRONG[row]
    with pytest.raises(RequestError, match=text) as caught:
        read_recording(saved(tmp_path / "x.npz", arrays), NETWORK)
    assert caught.value.code in ("E_TRACE", "E_AXES")
    assert str(tmp_path) in caught.value.message


def test_pickles_damage_and_too_few_inputs_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object))
    (tmp_path / "y.npz").write_bytes(b"PK\x03\x04 nothing")
    for name in ("x.npy", "y.npz", "none.npz"):
        with pytest.raises(RequestError) as caught:
            read_recording(tmp_path / name, NETWORK)
        assert caught.value.code == "E_TRACE"
    path = saved(tmp_path / "z.npz", spikes())
    with pytest.raises(RequestError, match="holds 2 samples and there are 1 inputs"):
        judged(path, X[:1])


# --- ties ---


def test_ties_are_the_decisions_on_which_the_comparisons_part() -> None:
    """The first difference of both runs is at a tie; without a tie there is none."""
    parted = 0
    for seed in range(12):
        network = net_network(seed)
        x = net_inputs(network, seed)
        found = ties(network, x)
        assert set(found) == {y.name for y in network.layers if not isinstance(y.neuron, Sum)}
        late = network.with_contract(replace(network.contract, compare="ge"))
        ours, theirs = spikes(network, x), spikes(late, x)
        same = all(np.array_equal(ours[name], theirs[name]) for name in found)
        assert same == (not sum(found.values()))
        parted += not same
    assert parted > 0
