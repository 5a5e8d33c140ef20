"""Loihi integers: legal for any input, near the float network, refused by name where impossible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.export.flips import Calibration, Teacher
from snnpipe.export.loihi_form import loihi_form
from snnpipe.export.quantise import Settings, quantise
from snnpipe.network.bounds import term_sums
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Grid, Integer
from snnpipe.network.graph import same_network
from snnpipe.network.grid import snap
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Synapse,
)
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Resetting, Sum, Threshold
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack


def one(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


LEAKY = LIF(one(0.25), one(1.0))
CUBA = CubaLIF(one(0.5), one(0.75), one(1.25))


def network(seed: int = 0, neuron: Neuron = LEAKY, bias: float = 0.2, gain: float = 1.0) -> Network:
    """Conv, conv, dense read-out on (1, 7, 6); snapped to the grid."""
    rng = np.random.default_rng(seed)

    def normal(scale: float, *shape: int) -> NDArray[np.float32]:
        return (rng.normal(0, scale, shape)).astype(np.float32)

    conv1 = Conv("conv1", normal(gain, 4, 1, 3, 3), normal(bias, 4), (1, 1), (1, 1))
    conv2 = Conv("conv2", normal(0.4, 6, 4, 3, 2), normal(bias, 6), (2, 1), (1, 0))
    fc = Dense("fc", normal(0.2, 3, 6 * 4 * 5), normal(bias, 3))
    layers = (
        Layer("lif1", neuron, (4, 7, 6), (Synapse("input", (conv1,)),)),
        Layer("lif2", neuron, (6, 4, 5), (Synapse("lif1", (conv2,)),)),
        Layer("readout", Sum(), (3,), (Synapse("lif2", (Flatten("flat"), fc)),)),
    )
    contract = Contract(steps=4, input_scale=1 / 256, input_levels=255)
    return snap(Network("input", (1, 7, 6), layers, "readout", contract))


def with_layer(source: Network, name: str, **changes: Any) -> Network:
    layers = [replace(x, **changes) if x.name == name else x for x in source.layers]
    return replace(source, layers=tuple(layers))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([0.0, 0.2, 3.0]),
    st.sampled_from([0.01, 1.0, 20.0]),
    st.sampled_from([LEAKY, IF(one(1.5)), LIF(one(0.75), one(0.5)), CUBA]),
    st.sampled_from(
        [
            ("host", "layer", "loihi1"),
            ("host", "channel", "loihi1"),
            ("graded", "layer", "loihi2"),
            ("graded", "channel", "loihi2"),
        ]
    ),
)
def test_what_comes_out_is_legal(
    seed: int, bits: int, bias: float, gain: float, neuron: Neuron, how: tuple[Any, Any, Any]
) -> None:
    first, thresholds, chip = how
    if neuron is CUBA:
        first = "graded"
        chip = "loihi2"
    settings_ = Settings(bits, first, "mse", thresholds, chip)
    integer, scales = quantise(network(seed, neuron, bias, gain), settings_)
    check(integer, "integer")
    arithmetic = integer.contract.arithmetic
    assert isinstance(arithmetic, Integer)
    assert arithmetic.weight_bits == bits
    assert all(np.max(scale.scale) >= 1 for scale in scales)
    assert all(np.min(scale.scale) <= scale.cap for scale in scales)
    step = 2 ** (9 - bits)
    for layer, _, operation in integer.operations():
        if layer.name not in arithmetic.host_scale and isinstance(operation, Conv | Dense):
            assert (operation.weight % step == 0).all()
            assert -256 <= operation.weight.min() <= operation.weight.max() <= 256 - step


def test_eight_bits_stay_near_the_float_network() -> None:
    source = network(1)
    integer, scales = quantise(source)
    x = frames(source, 200, 2)
    a, b = simulate(source, x, 4), simulate(integer, x, 4)
    for name, bits in a.spikes.items():
        changed = int(np.bitwise_count(bits ^ b.spikes[name]).sum())
        fired = int(np.bitwise_count(bits).sum())
        assert fired > 1000
        assert changed < 0.02 * fired, name
    read = b.outputs / (64 * np.max(scales[-1].scale) / 2 ** scales[-1].shift)
    assert np.corrcoef(read.ravel(), a.outputs.ravel())[0, 1] > 0.99


def test_fewer_bits_change_more() -> None:
    source = network(2)
    x = frames(source, 100, 2)
    truth = simulate(source, x, 4).spikes["lif2"]

    def changed(bits: int) -> int:
        spikes = simulate(quantise(source, Settings(bits))[0], x, 4).spikes["lif2"]
        return int(np.bitwise_count(truth ^ spikes).sum())

    assert changed(8) < changed(4) < changed(2)


def test_the_host_current_never_clips() -> None:
    for gain in (0.05, 1.0, 30.0):
        source = network(3, gain=gain)
        integer, scales = quantise(source)
        arithmetic = integer.contract.arithmetic
        assert isinstance(arithmetic, Integer)
        scale = arithmetic.host_scale["lif1"]
        positive, negative = term_sums(source)["lif1"]
        largest = max(positive.max(), negative.max())
        assert largest * scale * 64 <= 4095 * 2**7
        assert largest * (scale + 1) * 64 > 4095 * 2**7
        assert scales[0].scale == scale
        neuron = integer.layer("lif1").neuron
        assert isinstance(neuron, LIF)
        assert neuron.threshold == scale


def test_a_matrix_without_a_positive_weight_stays_in_the_range_of_inhibition() -> None:
    source = network(5)
    conv = source.layer("lif2").synapses[0].operations[0]
    assert isinstance(conv, Conv)
    edited = replace(conv, weight=-abs(conv.weight))
    source = snap(with_layer(source, "lif2", synapses=(Synapse("lif1", (edited,)),)))
    integer, _ = quantise(source)
    found = integer.layer("lif2").synapses[0].operations[0]
    assert isinstance(found, Conv)
    assert found.weight.min() >= -254
    check(integer, "integer")


def test_refusals_name_layer_and_reason() -> None:
    source = network(6)
    pool = (AvgPool("pool", (3, 3), (2, 2)), *source.layer("lif2").synapses[0].operations)
    pooled = with_layer(source, "lif2", synapses=(Synapse("lif1", pool),), shape=(6, 2, 1))
    delayed = Synapse("lif1", (*source.layer("lif2").synapses[0].operations, Delay("d", 1)))
    first = source.layer("lif1").synapses
    cases = [
        (pooled, "'lif2'.*'conv2' pads what 'pool' gives"),
        (with_layer(source, "lif2", neuron=LIF(one(0.3), one(1.0))), "'lif2'.*1/4096"),
        (with_layer(source, "lif1", neuron=LIF(one(0.25), one(1.0), one(-0.5))), "'lif1'.*resets"),
        (with_layer(source, "lif1", neuron=Threshold(one(1))), "'lif1'.*without a membrane"),
        (with_layer(source, "lif1", neuron=CUBA), "'lif1'.*graded"),
        (with_layer(source, "lif2", neuron=replace(LEAKY, gain=one(2))), "'lif2'.*gain"),
        (with_layer(source, "lif2", neuron=LI(one(0.25))), r"lif2' \(LI.*emit spikes"),
        (with_layer(source, "lif2", synapses=(delayed,)), "'lif2'.*'d' stands behind a bias"),
        (
            with_layer(source, "lif1", synapses=(*first, Synapse("lif1"))),
            "'lif1'.*joins the analog",
        ),
        (source.with_contract(replace(source.contract, reset="none")), "reset none"),
        (source.with_contract(replace(source.contract, compare="ge")), "compare ge"),
        (quantise(source)[0], "integers already"),
    ]
    for broken, words in cases:
        with pytest.raises(RequestError, match=words) as caught:
            quantise(broken)
        assert caught.value.code == "E_UNSUPPORTED"


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_weight_bits_the_chip_does_not_have(bits: int) -> None:
    with pytest.raises(RequestError, match="2 to 8"):
        Settings(bits)


def test_what_a_chip_does_not_have() -> None:
    source = network(8)
    cases: list[tuple[Network, Settings, str]] = [
        (
            source.with_contract(replace(source.contract, reset="subtract")),
            Settings(),
            "'lif1'.*reset subtract",
        ),
        (source, Settings(first_layer="graded", chip="loihi1"), "no graded spikes"),
        (
            source.with_contract(replace(source.contract, input_levels=256)),
            Settings(first_layer="graded", chip="loihi2"),
            "levels up to 256",
        ),
    ]
    for broken, settings_, words in cases:
        with pytest.raises(RequestError, match=words):
            quantise(broken, settings_)
    with pytest.raises(RequestError, match="training inputs") as caught:
        quantise(source, Settings(scaling="flips"))
    assert caught.value.code == "E_DATA"
    with pytest.raises(RequestError, match="chip is 'loihi3'"):
        Settings(chip="loihi3")  # type: ignore[arg-type]


def test_bytes_enter_as_they_are() -> None:
    source = network(9)
    integer, scales = quantise(source, Settings(first_layer="graded", chip="loihi2"))
    assert integer.contract.input_scale == 1
    assert integer.contract.input_levels == 255
    assert scales[0].where == "chip"
    levels = np.random.default_rng(0).integers(0, 256, (100, 1, 7, 6))
    a = simulate(source, source.frames(levels), 4)
    b = simulate(integer, integer.frames(levels), 4)
    for name, bits in a.spikes.items():
        changed = int(np.bitwise_count(bits ^ b.spikes[name]).sum())
        assert changed < 0.1 * int(np.bitwise_count(bits).sum()), name


def back(integer: Network, scales: Any, form: Network) -> Network:
    """The float network that integers stand for."""
    layers = []
    for layer, fact, source in zip(integer.layers, scales, form.layers, strict=True):
        if fact.where == "host":
            layers.append(source)
            continue
        scale = np.asarray(fact.scale)

        def one_back(op: Any, scale: Any = scale, shift: int = fact.shift) -> Any:
            if not isinstance(op, Dense | Conv):
                return op
            wide = scale.reshape(-1, *(1,) * (op.weight.ndim - 1)) if scale.ndim else scale
            bias = None if op.bias is None else (op.bias * 2**shift / scale).astype(np.float32)
            return replace(op, weight=(op.weight / wide).astype(np.float32), bias=bias)

        synapses = tuple(
            replace(s, operations=tuple(map(one_back, s.operations))) for s in layer.synapses
        )
        layers.append(replace(source, synapses=synapses))
    return replace(form, layers=tuple(layers))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize(
    ("thresholds", "chip"), [("layer", "loihi2"), ("channel", "loihi2"), ("channel", "loihi1")]
)
def test_integers_taken_back_to_floats_become_the_same_integers(
    bits: int, thresholds: Any, chip: Any
) -> None:
    how = Settings(bits, thresholds=thresholds, chip=chip)
    for seed in range(10, 16):
        source = network(seed)
        integer, scales = quantise(source, how)
        again, found = quantise(snap(back(integer, scales, loihi_form(source, host=True))), how)
        assert all(fact.kept for fact in found if fact.where == "chip")
        for (_, _, a), (_, _, b) in zip(integer.operations(), again.operations(), strict=True):
            for part in ("weight", "bias"):
                assert np.array_equal(getattr(a, part, None), getattr(b, part, None)), (seed, part)
        for a, b in zip(integer.layers, again.layers, strict=True):
            if isinstance(a.neuron, Resetting) and isinstance(b.neuron, Resetting):
                assert np.array_equal(a.neuron.threshold, b.neuron.threshold)
        assert integer.contract.arithmetic == again.contract.arithmetic
        assert not any(fact.kept for fact in scales if fact.where == "chip")


def test_a_core_of_loihi_1_holds_eight_thresholds() -> None:
    rng = np.random.default_rng(1)
    weight = (rng.normal(0, 0.3, (100, 42)) * rng.uniform(0.2, 3, (100, 1))).astype(np.float32)
    source = network(20)
    dense = Dense("d", np.tile(weight, (1, 4)))
    wide = Layer("lif2", LEAKY, (100,), (Synapse("lif1", (Flatten("f"), dense)),))
    last = Dense("o", weight[:3, :1] * np.ones((3, 100), np.float32))
    out = Layer("readout", Sum(), (3,), (Synapse("lif2", (last,)),))
    source = snap(replace(source, layers=(source.layers[0], wide, out)))
    many, scales = quantise(source, Settings(4, thresholds="channel", chip="loihi2"))
    few, shared = quantise(source, Settings(4, thresholds="channel", chip="loihi1"))
    single, _ = quantise(source, Settings(4))
    counts = [
        len(np.unique(x.layer("lif2").neuron.threshold))  # type: ignore[union-attr]
        for x in (many, few, single)
    ]
    assert counts[0] > 20
    assert 4 < counts[1] <= 8
    assert counts[2] == 1
    assert shared[1].thresholds == counts[1]
    assert scales[1].relative_error <= shared[1].relative_error < 0.3


EXACT = (Conv1d, Threshold, LI, CubaLI)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(networks(False, True, 4, EXACT), st.integers(0, 999), st.sampled_from(["value", "subtract"]))
def test_weights_on_a_lattice_lose_nothing(source: Network, seed: int, reset: Any) -> None:
    """Pools, sums, identities, delays, loops, currents with a memory: the same spikes in floats
    and in integers, where nothing needs rounding."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in source.layers:
        parts: dict[str, Any] = {}
        if isinstance(layer.neuron, Resetting):
            threshold = (rng.integers(1, 12, np.shape(layer.neuron.threshold)) / 8).astype(
                np.float32
            )
            decay, kind = one(rng.choice([0, 0.5])), type(layer.neuron)
            parts["neuron"] = (
                IF(threshold) if kind is IF
                else LIF(decay, threshold) if kind is LIF
                else CubaLIF(one(0.5), decay, threshold)
            )  # fmt: skip
            if kind is CubaLIF:
                parts["synapses"] = tuple(
                    replace(s, operations=tuple(
                        replace(op, bias=None) if isinstance(op, Dense | Conv) else op
                        for op in s.operations))
                    for s in layer.synapses
                )  # fmt: skip
        layers.append(replace(layer, **parts))
    contract = Contract(3, reset=reset, input_levels=3)
    contract = contract.with_arithmetic(Grid({}, {}))  # `snap` joins no scales with weights
    source = replace(source, layers=tuple(layers), contract=contract)
    try:
        integer, scales = quantise(source, Settings(first_layer="graded", chip="loihi2"))
    except RequestError as error:
        assume(error.code not in ("E_UNSUPPORTED", "E_RANGE"))
        raise
    assume(all(fact.kept and not fact.remark for fact in scales))
    levels = rng.integers(0, 4, (5, *source.input_shape))
    a = simulate(source, source.frames(levels), 3)
    b = simulate(integer, integer.frames(levels), 3)
    assert a.spikes.keys() == b.spikes.keys()
    for name, bits in a.spikes.items():
        assert np.array_equal(bits, b.spikes[name]), name
    teacher = Teacher(loihi_form(source, host=False), Calibration(levels, "noise", ()))
    for layer, fact in zip(integer.layers, scales, strict=True):
        errors = teacher.errors(layer, np.asarray(fact.scale), fact.shift)
        assert errors.shape == layer.shape[:1]
        assert (errors < 1e-9).all(), layer.name


def test_flips_are_counted_layer_by_layer() -> None:
    source = network(30)
    x = np.random.default_rng(3).integers(0, 256, (70, 1, 7, 6))
    calibration = Calibration(x, "noise", tuple(range(70)))
    form = loihi_form(source, host=True)
    teacher = Teacher(form, calibration)
    exact, facts = quantise(source)
    layer = exact.layer("lif2")
    flips = teacher.errors(layer, np.asarray(facts[1].scale))
    assert flips.shape == (6,)
    # By hand: the layer alone in integers behind the float one, on the float one's spikes.
    truth = simulate(source, source.frames(x), 4)
    given = unpack(truth.spikes["lif1"], (4, 7, 6)).astype(np.float32)
    alone = replace(
        exact,
        input_shape=(4, 7, 6),
        input="lif1",
        layers=(layer,),
        output="lif2",
        contract=exact.contract.with_arithmetic(
            Integer(8, exact.contract.arithmetic.bias_exponents)
        ),  # type: ignore[union-attr]
    )
    found = simulate(alone, given, 4)
    wrong = unpack(truth.spikes["lif2"], layer.shape) != unpack(found.spikes["lif2"], layer.shape)
    assert np.array_equal(flips, wrong.sum(axis=(0, 1, 3, 4)))
    assert flips.any()
    counted = quantise(source, Settings(3, scaling="flips"), calibration)[0]
    squared = quantise(source, Settings(3))[0]
    few, many = (teacher.errors(net.layer("lif2"), np.ones(())).sum() for net in (counted, squared))
    assert few <= many


def test_flips_are_the_same_in_any_order_of_calls() -> None:
    source = network(31)
    x = np.random.default_rng(4).integers(0, 256, (65, 1, 7, 6))
    calibration = Calibration(x, "noise", tuple(range(65)))
    how = Settings(3, scaling="flips", thresholds="channel")
    first, scales = quantise(source, how, calibration)
    again, others = quantise(source, how, calibration)
    assert scales == others
    assert same_network(first, again)
    other = Calibration(x[:40], "noise", tuple(range(40)))
    assert other.sha256 != calibration.sha256
