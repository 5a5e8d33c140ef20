"""The portable profile and the files for nir 1.0.4: what is refused, changed and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign.reader_networks import on_grid, portable_networks, sinabs_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.export.targets import _nir_1_0_4 as old
from snnpipe.export.targets._nir_portable import TABLE, portable
from snnpipe.export.write import write_targets
from snnpipe.network.contract import Contract, Float32
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Scale,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Neuron,
    Sum,
    Threshold,
    parameters,
)
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate
from snnpipe.network.support import PARTS
from snnpipe.network.trace import Trace


def value(number: float | list[float]) -> np.ndarray:
    return np.asarray(number, np.float32)


def changed(network: Network, neuron: Neuron | None = None, **contract: Any) -> Network:
    """The network with another neuron in its first layer, and another contract."""
    layers = network.layers
    if neuron is not None:
        layers = (replace(layers[0], neuron=neuron), *layers[1:])
    return replace(network, layers=layers, contract=replace(network.contract, **contract))


def one(operation: Operation, before: tuple[int, ...], after: tuple[int, ...]) -> Network:
    """An operation and a LIF."""
    layer = Layer("lif", LIF(value(0.5), value(1)), after, (Synapse("input", (operation,)),))
    return Network("input", before, (layer,), "lif", Contract(4))


def same_spikes(a: Trace, b: Trace) -> bool:
    return (a.outputs == b.outputs).all() and all(
        (a.spikes[name] == b.spikes[name]).all() for name in a.spikes
    )


DENSE, CONV = (portable_networks()[name] for name in ("dense", "conv"))
KERNEL = np.ones((2, 2, 3, 3), np.float32)


def fed_by_two(network: Network) -> Network:
    """The network with two branches into its output."""
    ends = (Synapse("layer2"), Synapse("layer2", (Dense("again", np.eye(8, dtype=np.float32)),)))
    out = Layer("sum", Sum(), (8,), ends)
    return replace(network, layers=(*network.layers, out), output="sum")


def looped(network: Network) -> Network:
    """The network with a synapse from its first layer to itself."""
    first = network.layers[0]
    loop = Synapse(first.name, (Dense("loop", np.eye(first.size, dtype=np.float32)),))
    again = replace(first, synapses=(*first.synapses, loop))
    return replace(network, layers=(again, *network.layers[1:]))


def underscored(network: Network) -> Network:
    """The network with parts called a.b and a_b."""
    return replace(network, input="layer0", output_port="a.b", layers=(
        replace(network.layers[0], name="a_b", synapses=(
            replace(network.layers[0].synapses[0], source="layer0"),)),), output="a_b")  # fmt: skip


REFUSED: dict[str, tuple[Callable[[], Network], str]] = {
    "IF": (lambda: changed(DENSE, IF(value(1))), r"'layer0'.*decay 0\.9"),
    "LI": (lambda: changed(DENSE, LI(value(0.5))), "'layer0'.*neither"),
    "CubaLI": (lambda: changed(DENSE, CubaLI(value(0.5), value(0.5))), "'layer0'.*neither"),
    "Threshold": (lambda: changed(DENSE, Threshold(value(1))), "'layer0'.*neither"),
    "Scale": (lambda: one(Scale("s", value(0.5)), (3,), (3,)), "'s' .*neither"),
    "Delay": (lambda: one(Delay("d", 2), (3,), (3,)), "'d' .*neither"),
    "loop": (lambda: looped(DENSE), "from 'layer0' into layer 'layer0'.*loops"),
    "subtract": (lambda: changed(DENSE, reset="subtract"), "reset by subtraction"),
    "v_reset": (
        lambda: changed(DENSE, LIF(value(0.5), value(1), value(-0.5))),
        "'layer0'.*another value than 0",
    ),
    "gain": (
        lambda: changed(DENSE, LIF(value(0.5), value(1), gain=value(2))),
        "'layer0'.*gain",
    ),
    "decays": (
        lambda: changed(DENSE, LIF(value([0.5, 0.75] * 6), value(1))),
        "'layer0'.*differ in decay",
    ),
    "thresholds": (
        lambda: changed(DENSE, LIF(value(0.5), value([1, 2] * 6))),
        "'layer0'.*differ in threshold",
    ),
    "groups": (
        lambda: one(Conv("c", KERNEL[:, :1], None, groups=2), (2, 5, 5), (2, 3, 3)),
        "'lif': 'c' has groups",
    ),
    "groups of one axis": (
        lambda: one(Conv1d("c", KERNEL[:, :1, 0], None, groups=2), (2, 5), (2, 3)),
        "'lif': 'c' has groups",
    ),
    "kernel": (
        lambda: one(Conv("c", KERNEL[:, :, :2]), (2, 5, 5), (2, 4, 3)),
        "'lif': 'c' .*not square",
    ),
    "padding": (
        lambda: one(SumPool("p", (2, 2), (2, 2), (1, 1)), (2, 4, 4), (2, 3, 3)),
        "'lif': 'p' pads",
    ),
    "area": (
        lambda: one(SumPool("p", (3, 2), (1, 1)), (2, 4, 4), (2, 2, 3)),
        "'lif': 'p' is read as a mean times 6",
    ),
    "output": (lambda: fed_by_two(DENSE), "'sum'.*several branches"),
    "names": (lambda: underscored(DENSE), "'a_b'"),
}


def test_the_table_has_a_row_for_every_part() -> None:
    assert set(TABLE) == set(PARTS)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_readers_do_not_share_is_refused_by_name(name: str) -> None:
    make, text = REFUSED[name]
    with pytest.raises(RequestError, match=text) as caught:
        portable(make())
    assert caught.value.code == ("E_NAME" if name == "names" else "E_UNSUPPORTED")


@pytest.mark.parametrize("name", portable_networks())
def test_both_comparisons_give_the_spikes_of_the_network(name: str) -> None:
    network = portable_networks()[name]
    written, facts = portable(network)
    assert not facts["ties"]
    x, steps = frames(network, 32, 7, network.contract.steps), network.contract.steps
    expected = simulate(network, x, steps)
    other = "gt" if network.contract.compare == "ge" else "ge"
    assert not same_spikes(simulate(changed(network, compare=other), x, steps), expected)
    for compare in ("gt", "ge"):
        assert same_spikes(simulate(changed(written, compare=compare), x, steps), expected)


def shared(network: Network) -> Network:
    """The network with one value for all in every neuron, hard resets, and its certificate."""

    def first(neuron: Neuron) -> Neuron:
        own = {name: values.flat[0].reshape(()) for name, values in parameters(neuron).items()}
        plain = {"gain": value(1), "synaptic_gain": value(1), "leak": value(0)}
        return replace(neuron, **{name: plain.get(name, values) for name, values in own.items()})

    layers = tuple(replace(layer, neuron=first(layer.neuron)) for layer in network.layers)
    contract = replace(network.contract, reset="value", reset_time="same_step")
    return on_grid(replace(network, layers=layers, contract=contract), 4)


@given(
    networks(v_reset=False, without=(IF, LI, CubaLI, Threshold, Scale, Delay)).map(shared),
    st.integers(0, 9),
)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_a_random_network_is_refused_or_keeps_every_spike(network: Network, seed: int) -> None:
    try:
        written, facts = portable(network)
    except RequestError as error:
        if error.code != "E_UNSUPPORTED":
            raise
        return
    steps = network.contract.steps
    x = frames(network, 4, seed, steps)
    expected = simulate(network, x, steps)
    compares = [network.contract.compare] if facts["ties"] else ["gt", "ge"]
    for compare in compares:
        assert same_spikes(simulate(changed(written, compare=compare), x, steps), expected)


def test_thresholds_move_by_half_a_step_of_the_finest_membrane() -> None:
    # fc0: products of 2^-3 and 2^-2, decay 2^-1 kept over 5 further steps: 2^-10
    written, facts = portable(DENSE)
    assert facts["thresholds"]["layer0"] == [1.0, 1.0 + 2.0**-11]
    assert portable(portable_networks()["dense-ge"])[1]["thresholds"]["layer0"][1] == 1 - 2.0**-11
    assert isinstance(written.layers[0].neuron, LIF)
    assert written.layers[0].neuron.threshold == np.float32(1.0 + 2.0**-11)
    between = changed(DENSE, LIF(value(0.5), value(1 + 2.0**-12)))
    assert "layer0" not in portable(between)[1]["thresholds"]


def test_ties_that_cannot_be_decided_are_named() -> None:
    long = changed(DENSE, steps=30)
    written, facts = portable(long)
    assert set(facts["ties"]) == {"layer0", "layer1"}
    assert "34 binary places in 30 steps" in facts["ties"]["layer0"]
    assert set(facts["thresholds"]) == {"layer2"}
    assert parameters(written.layers[0].neuron)["threshold"] == 1
    odd = portable(changed(DENSE, LIF(value(0.9), value(1)), steps=2))[1]
    assert "layer0" in odd["ties"]
    loose = portable(changed(DENSE, arithmetic=Float32()))[1]
    assert set(loose["ties"].values()) == {"its sums are exact on no grid"}
    assert not loose["thresholds"]


def test_only_what_both_readers_multiply_alike_stays_a_lif() -> None:
    for decay, stays in ((0.5, True), (0.75, True), (0.96875, True), (0.25, False), (0, False)):
        written, facts = portable(changed(DENSE, LIF(value(decay), value(1))))
        assert isinstance(written.layers[0].neuron, LIF if stays else CubaLIF)
        assert ("layer0" in facts["as_cuba"]) is not stays


def test_the_file_has_steps_of_100_us_and_axes_counted_from_behind(tmp_path: Path) -> None:
    folder = write_targets(changed(CONV, dt=1e-3), ["nir"], tmp_path, None, {"profile": "portable"})
    network = read_network(folder["nir"] / "network.nir")
    assert network.contract.dt == 1e-4
    (flatten,) = (op for _, _, op in network.operations() if isinstance(op, Flatten))
    assert (flatten.start, flatten.end) == (-3, -1)
    with h5py.File(folder["nir"] / "network.nir") as file:
        node = file["node/nodes/layer1"]
        assert node["tau"].dtype == np.float64
        assert node["tau"].shape == node["v_threshold"].shape == (10,)
        assert node["tau"][0] == pytest.approx(8e-4)
    said = json.loads((folder["nir"] / "manifest.json").read_text())
    assert said["options"] == {"profile": "portable", "compat": "1.0.8"}
    assert said["portable"]["as_cuba"] == ["layer0"]
    assert set(said["portable"]["thresholds"]) == {"layer0", "layer1"}


# --- 1.0.4 ---


@pytest.mark.parametrize("options", [{}, {"profile": "portable"}])
def test_a_file_for_1_0_4_has_no_v_reset_and_no_linear_and_is_the_same_network(
    options: dict[str, str], tmp_path: Path
) -> None:
    given_options = {**options, "compat": "1.0.4"}
    path = write_targets(DENSE, ["nir"], tmp_path, None, given_options)["nir"] / "network.nir"
    with h5py.File(path) as file:
        assert file["version"].asstr()[()] == "1.0.4"
        nodes = {name: set(node) for name, node in file["node/nodes"].items()}
        types = {node["type"].asstr()[()] for node in file["node/nodes"].values()}
    assert not any("v_reset" in keys for keys in nodes.values())
    assert "Affine" in types
    assert "Linear" not in types
    back = read_network(path)
    assert back.contract == replace(DENSE.contract, dt=1e-4)
    steps = DENSE.contract.steps
    x = frames(DENSE, 8, 3, steps)
    assert same_spikes(simulate(back, x, steps), simulate(DENSE, x, steps))


@pytest.mark.parametrize(
    ("neuron", "text"),
    [
        (CubaLI(value(0.5), value(0.5)), "'layer0': it has no CubaLI"),
        (LIF(value(0.5), value(1), value(-1)), "'layer0': it has no v_reset"),
    ],
)
def test_what_1_0_4_does_not_know_is_refused(neuron: Neuron, text: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=text) as caught:
        write_targets(changed(DENSE, neuron), ["nir"], tmp_path, None, {"compat": "1.0.4"})
    assert caught.value.code == "E_UNSUPPORTED"
    assert not list(tmp_path.iterdir())


SINABS = sinabs_networks()["old-dense"]


def with_weights(network: Network, factor: float) -> Network:
    """The first map's weights times a power of two."""
    first = network.layers[0]
    (synapse,) = first.synapses
    (dense,) = synapse.operations
    assert isinstance(dense, Dense)
    scaled = replace(synapse, operations=(replace(dense, weight=dense.weight * value(factor)),))
    return replace(network, layers=(replace(first, synapses=(scaled,)), *network.layers[1:]))


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (changed(SINABS, LIF(value(0.5), value(1))), "takes its tau for steps"),
        (changed(SINABS, IF(value(1), gain=value(2))), "ignores the input gain"),
        (changed(SINABS, reset="value"), "resets by subtraction"),
        (changed(SINABS, reset_time="next_after_decay"), "resets by subtraction in the step"),
        (changed(SINABS, compare="gt"), "fires at the threshold"),
        (with_weights(SINABS, 4), "several times in one step"),
        (with_weights(SINABS, -1), "minus the threshold"),
        (changed(SINABS, arithmetic=Float32()), "no grid"),
        (looped(SINABS), "before all that feed it"),
        (one(AvgPool("p", (2, 2), (2, 2)), (2, 4, 4), (2, 2, 2)), "'p' is a AvgPool"),
        (one(SumPool("p", (2, 2), (2, 2), (1, 1)), (2, 4, 4), (2, 3, 3)), "'p' pads"),
        (one(SumPool("p", (3, 3), (1, 1)), (2, 4, 4), (2, 2, 2)), "'p' is read as a mean"),
        (one(Conv("c", KERNEL[:, :1], None, groups=2), (2, 5, 5), (2, 3, 3)), "'c' has groups"),
    ],
)
def test_what_sinabs_does_otherwise_is_said(network: Network, text: str) -> None:
    name = network.layers[0].name
    assert text in old.sinabs_differs(network)[name]


def test_nothing_is_said_of_networks_that_sinabs_runs_spike_for_spike() -> None:
    for network in sinabs_networks().values():
        assert old.sinabs_differs(network) == {}
