"""Energy of a small network by hand, to the last digit, and what is missing named."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import toy_network
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import frames, networks
from snnpipe.errors import RequestError
from snnpipe.hardware.baselines import break_even
from snnpipe.hardware.chip_file import load_chip
from snnpipe.hardware.energy import energy, plan, ratio
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import IF, LI, LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import join

LOIHI, CMOS = load_chip("loihi1"), load_chip("cmos45")
NAHUKU, MEMORY = load_chip("loihi1-nahuku"), load_chip("cmos45-mem")
NETWORK = toy_network.network()
TRACE = simulate(NETWORK, toy_network.frame(), toy_network.STEPS)


def test_loihi1_by_hand():
    report = energy(NETWORK, TRACE, LOIHI)
    assert [(term.name, term.count, term.amount.value) for term in report.terms] == [
        ("synops", 280, 6608.0),
        ("updates_active", 145, 11745.0),
        ("updates_inactive", 27, 1404.0),
        ("messages", 87, 147.9),
    ]
    total = report.dynamic
    assert total.all_samples == total.per_inference
    assert total.all_samples.value == total.all_samples.at_least == 19904.9
    assert (total.all_samples.low, total.all_samples.high) == (15699.9, 24019.9)
    assert report.activity_range == (15699.9, 20687.9)
    assert (total.grade, total.label) == ("S", "at least")  # the host's part has no price
    assert [(term.name, term.count) for term in report.host] == [
        ("host_macs", 200),
        ("host_values_in", 32),
        ("host_spikes_out", 6),
    ]
    assert report.unpriced == ("host_macs", "host_values_in", "host_spikes_out")
    assert (report.unmapped, report.unchecked) == ((), ())
    assert (report.ann.macs, report.ann.total, report.ann.snn_over_ann) == (324, None, None)
    assert "no price for a multiply-accumulate" in report.ann.reason


def test_loihi1_static_power_stands_apart():
    rows = {(t.mode, t.clock): t for t in energy(NETWORK, TRACE, LOIHI).static}
    values = {key: row.total.all_samples.value for key, row in rows.items()}
    assert values == {
        ("stream", "free"): 2_421_500.0,
        ("stream", "throttled"): 417_500_000.0,
        ("isolated", "free"): 3_632_250.0,  # two layers of synapses on the chip: six steps
        ("isolated", "throttled"): 626_250_000.0,
    }
    free = rows["stream", "free"]
    assert free.step_us == (5.8, 5.8, 13.0)
    assert free.total.all_samples.high == 5_428_800.0
    assert (free.total.grade, free.chips, free.total.label) == ("M", 1, "")
    assert [price.key for price in free.prices] == ["power.static_chip_mw", "time.step_us"]


@pytest.mark.parametrize(
    ("form", "choice", "snn", "ann"),
    [
        ("fp32", {"first_layer": "once"}, 1172.0, 1490.4),
        ("fp32", {"first_layer": "per_step"}, 3932.0, 1490.4),
        ("fp32", {"first_layer": "per_step", "zeros": "skip"}, 877.6, 1490.4),
        ("fp32", {"first_layer": "host"}, 252.0, 1490.4),
        ("int8", {"first_layer": "once"}, 88.0, 97.2),
        ("int8", {"first_layer": "per_step"}, 268.0, 97.2),
        ("int8", {"first_layer": "per_step", "zeros": "skip"}, 68.8, 97.2),
        ("fp16", {}, 412.0, 486.0),
    ],
)
def test_cmos45_by_hand(form, choice, snn, ann):
    report = energy(NETWORK, TRACE, CMOS, number_format=form, **choice)
    assert report.dynamic.all_samples.value == snn
    assert report.ann.total.all_samples.value == ann
    assert report.dynamic.grade == report.ann.total.grade == "D"
    assert report.static == ()
    assert report.cores == ()
    if choice.get("first_layer") == "host":
        assert report.dynamic.label == "at least"
        assert report.ann.snn_over_ann is None
    else:
        assert report.dynamic.label == ""
        assert report.ann.snn_over_ann == snn / ann


def test_nahuku_by_hand():
    report = energy(NETWORK, TRACE, NAHUKU)
    assert {term.name: (term.count, term.amount.value) for term in report.terms} == {
        "synops_conv": (220, 5280.0),
        "synops_dense": (60, 2130.0),
        "accesses": (172, 8806.4),
        "updates_active": (145, 3132.0),
        "spikes_out": (93, 6444.9),
        "messages": (87, 9657.0),
    }
    assert (report.dynamic.all_samples.value, report.dynamic.grade) == (35450.3, "R")
    # Were it not known how many updates were active: from none of them to all.
    amount = energy(NETWORK, replace(TRACE, active=None), NAHUKU).dynamic.all_samples
    assert amount.value is None
    assert (amount.low, amount.high) == (32318.3, 32318.3 + 172 * 21.6)


def test_memory_by_hand():
    """Streamed: a byte costs 1.25 pJ, 32 bits cost 5; alone every access costs 10."""
    report = energy(NETWORK, TRACE, MEMORY)
    assert {term.name: (term.count, term.amount.value) for term in report.terms} == {
        "additions": (480, 48.0),
        "multiplications": (200, 40.0),
        "compares": (172, 17.2),
        "weight_reads": (480, 600.0),
        "input_reads": (200, 250.0),
        "states": (904, 4520.0),
        "spikes": (174, 870.0),
        "outputs": (6, 30.0),
    }
    total = report.dynamic.all_samples
    assert (total.value, report.dynamic.label, report.dynamic.grade) == (6375.2, "", "D")
    accesses = 480 + 200 + 904 + 174 + 6
    assert total.high == pytest.approx(48.0 + 40.0 + 17.2 + 10 * accesses, rel=1e-15)
    found = {(one.name, one.reuse): one.total.all_samples.value for one in report.baselines}
    assert found["ANN int8", "none"] == 960.95
    assert found["ANN int8", "full"] == 318.45
    # The quantised partner of four steps has 3-bit activations: its inputs are narrower words.
    assert found["quantised ANN, 3-bit activations", "none"] == 960.95 - 324 * 5 * 10 / 64
    assert found["quantised ANN, 3-bit activations", "full"] == 318.45 - 56 * 5 * 10 / 64
    ratios = [one.snn_over_ann for one in report.baselines[:2]]
    assert [round(one, 1) for one in ratios] == [6.6, 20.0]


def test_a_leak_is_a_product_and_a_large_memory_costs_more():
    fc = Dense("fc", np.ones((9000, 8), np.float32))
    neuron = LIF(np.float32(0.5), np.float32(0.9))
    last = Layer("three", neuron, (9000,), (Synapse("two", (Flatten("flat"), fc)),))
    network = replace(NETWORK, layers=(*NETWORK.layers[:2], last))
    report = energy(network, simulate(network, toy_network.frame(), 4), MEMORY)
    terms = [(term.name, term.count, term.prices[0].value) for term in report.terms]
    assert ("decays", 36_000, 3.1) in terms
    # 36,000 bytes of membranes lie between 32 KB and 1 MB, 72,000 of weights too.
    slope = 80 / (1048576 - 32768)
    states = [price for name, _, price in terms if name == "states"]
    assert states == pytest.approx([5.0, (20 + (36_000 - 32_768) * slope) / 2], rel=1e-12)
    weights = [price for name, _, price in terms if name == "weight_reads"]
    assert weights == pytest.approx([1.25, (20 + (72_000 - 32_768) * slope) / 8], rel=1e-12)


def test_a_chip_without_prices_is_refused_by_name():
    for name in ("loihi2", "speck", "xylo"):
        with pytest.raises(RequestError, match=f"chip '{name}' can be mapped and not priced") as no:
            energy(NETWORK, TRACE, load_chip(name))
        assert no.value.code == "E_NO_PRICE"


def test_one_price_an_operation():
    for name, value in (("odin", 2360.4), ("truenorth", 644.0)):
        report = energy(NETWORK, TRACE, load_chip(name))
        assert [(term.name, term.count) for term in report.terms] == [("synops", 280)]
        assert report.dynamic.all_samples.value == value
    (odin,) = energy(NETWORK, TRACE, load_chip("odin")).static
    # 27.3 uW and 75 MHz at 1.78 uW/MHz, for four steps of 1 ms; the event rate is on top.
    assert (odin.clock, odin.total.all_samples.value) == ("throttled", 643_200.0)


def test_ratios_stay_within_a_price_list():
    fp32 = energy(NETWORK, TRACE, CMOS)
    int8 = energy(NETWORK, TRACE, CMOS, number_format="int8")
    memory = energy(NETWORK, TRACE, MEMORY)
    again = energy(NETWORK, TRACE, CMOS, first_layer="per_step")
    assert ratio(again, fp32) == (3932.0 / 1172.0, "")
    for other in (int8, memory):
        with pytest.raises(RequestError, match="different price lists") as caught:
            ratio(fp32, other)
        assert caught.value.code == "E_RATIO"
    value, said = ratio(fp32, memory, force=True)
    assert value == 1172.0 / 6375.2
    assert said.startswith("forced: Arithmetic in 45 nm CMOS")
    with pytest.raises(RequestError, match="'loihi1' is at least: without host_macs"):
        ratio(energy(NETWORK, TRACE, LOIHI), fp32, force=True)


def test_the_ann_in_three_forms():
    found = {one.name: one for one in energy(NETWORK, TRACE, CMOS).baselines}
    assert [one.macs for one in found.values()] == [324, 324, 324]
    assert found["ANN fp32"].total.all_samples.value == 1490.4
    assert found["ANN int8"].total.all_samples.value == 97.2
    assert found["ANN int8"].snn_over_ann is None  # the spiking network was priced in fp32
    partner = found["quantised ANN, 3-bit activations"]
    assert (partner.partner_bits, partner.total.all_samples.value) == (3, 97.2)


def test_break_even_rates():
    """Arithmetic alone: 4.6/0.9 and 0.3/0.1 spikes of each input element, whatever the layer."""
    for form, even in (("fp32", 4.6 / 0.9), ("int8", 3.0)):
        rows = energy(NETWORK, TRACE, CMOS, number_format=form).break_even
        assert [row.layer for row in rows] == ["two", "three"]
        assert [row.even for row in rows] == pytest.approx([even, even], rel=1e-15)
        assert [row.spikes for row in rows] == [67 / 32, 20 / 8]
        assert rows[1].margin == pytest.approx(even / 2.5, rel=1e-15)
    assert {row.even for row in energy(NETWORK, TRACE, MEMORY).break_even} == {None}
    assert energy(NETWORK, TRACE, LOIHI).break_even == ()
    # With a memory, updates and spikes free: 2.8/11.35 without reuse, 0.3/11.35 with all of it.
    m, a = Fraction("11.35"), Fraction(0)
    for mac, even in (("2.8", 0.247), ("0.3", 0.026)):
        free = break_even(784 * 512, 784, 512, 4, Fraction(mac), m, a, a)
        assert round(float(free), 3) == even
    # (m - T u / Nin) / (a + g / Nout)
    priced = [Fraction(text) for text in ("4.6", "0.9", "10", "0.5")]
    got = break_even(784 * 512, 784, 512, 4, *priced)
    assert got == (priced[0] - 4 * priced[3] / 784) / (priced[1] + priced[2] / 512)
    assert break_even(6, 3, 2, 4, Fraction(1), Fraction(1), a, Fraction(1)) is None


def test_cmos45_bounds_of_the_accumulator():
    amount = energy(NETWORK, TRACE, CMOS, number_format="int8").dynamic.all_samples
    assert (amount.low, amount.high) == (54.4, 88.0)


def test_layers_and_sources_are_in_the_report():
    data = energy(NETWORK, TRACE, LOIHI).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False))["dynamic"] == data["dynamic"]
    assert data["unit"] == "pJ"
    layers = {layer["layer"]: layer for layer in data["layers"]}
    assert [layers[n]["spikes"] for n in ("one", "two", "three")] == [67, 20, 6]
    assert [layers[n]["synops"] for n in ("one", "two", "three")] == [0, 220, 60]
    assert [layers[n]["messages"] for n in ("one", "two", "three")] == [67, 20, 0]
    assert [layers[n]["active"] for n in ("one", "two", "three")] == [104, 32, 9]
    assert (layers["one"]["mac_dense"], layers["one"]["mac_nz"]) == (800, 136)
    assert layers["one"]["mac"] == 0  # made on the host
    price = data["terms"][0]["prices"][0]
    assert (price["key"], price["value"], price["kind"]) == ("energy.synop_pj", 23.6, "S")
    assert price["sources"][0].startswith("Davies et al.")
    assert any("before silicon" in note for note in data["notes"])


def test_totals_and_means():
    traces = [simulate(NETWORK, x, 4) for x in (toy_network.frame(2), toy_network.frame(1))]
    report = energy(NETWORK, join(traces), LOIHI)
    assert report.samples == 3
    assert report.dynamic.all_samples.value == 59714.7
    assert report.dynamic.per_inference.value == 19904.9
    static = report.static[0].total
    assert (static.all_samples.value, static.per_inference.value) == (7_264_500.0, 2_421_500.0)
    assert [term.count for term in report.host] == [600, 96, 18]
    once = energy(NETWORK, join(traces), CMOS)
    assert once.dynamic.per_inference.value == 1172.0
    assert once.ann.total.per_inference.value == 1490.4
    # The divisor may be given, for a trace whose outputs were not all kept.
    short = replace(join(traces), outputs=TRACE.outputs)
    assert energy(NETWORK, short, LOIHI, samples=3) == report
    assert energy(NETWORK, short, LOIHI) != report


def test_without_activity_there_are_bounds_and_no_value():
    report = energy(NETWORK, replace(TRACE, active=None), LOIHI)
    amount = report.dynamic.all_samples
    assert amount.value is None
    assert (amount.at_least, amount.low, amount.high) == (15699.9, 15699.9, 24019.9)
    assert report.activity_range == (15699.9, 20687.9)
    updates = next(term for term in report.terms if term.name == "updates")
    assert (updates.count, len(updates.prices), updates.amount.value) == (172, 2, None)
    assert any("did not record which updates were active" in note for note in report.notes)
    assert energy(NETWORK, replace(TRACE, active=None), CMOS).dynamic.all_samples.value == 1172.0


def test_a_missing_price_is_named_and_never_zero():
    prices = {k: v for k, v in LOIHI.energy[""].items() if k != "spike_tile_pj"}
    report = energy(NETWORK, TRACE, replace(LOIHI, energy={"": prices}))
    amount = report.dynamic.all_samples
    assert (amount.value, amount.high) == (None, None)
    assert amount.at_least == 19757.0
    assert (report.dynamic.grade, report.dynamic.label) == ("U", "at least")
    assert report.unpriced[0] == "messages"
    assert next(t for t in report.terms if t.name == "messages").count == 87
    assert report.activity_range is None


def test_a_chip_without_prices_counts_and_charges_nothing():
    bare = replace(LOIHI, energy={}, power={}, time={})
    report = energy(NETWORK, TRACE, bare)
    assert report.dynamic.all_samples.value is None
    assert report.dynamic.all_samples.at_least == 0.0
    assert report.dynamic.grade == "U"
    assert report.static == ()
    assert {"synops", "updates_active", "updates_inactive", "messages"} <= set(report.unpriced)
    assert "static power: no price in the chip file" in report.notes


def test_an_all_in_price_gets_nothing_added():
    synop = LOIHI.energy[""]["synop_pj"]
    prices = {"": {"synop_pj": synop}}
    chip = replace(LOIHI, scope="all_in", model="synop", energy=prices, power={}, time={})
    report = energy(NETWORK, TRACE, chip)
    assert [(term.name, term.amount.value) for term in report.terms] == [("synops", 6608.0)]
    assert report.dynamic.all_samples.value == 6608.0
    assert report.static == ()


def test_a_layer_that_cannot_be_cut_is_priced_and_named():
    small = replace(LOIHI, limits=replace(LOIHI.limits, neurons_per_core=31, axons_in=7))
    report = energy(NETWORK, TRACE, small)
    broken = [(e.layer, e.limit, e.needed, e.allowed) for e in report.unmapped]
    # One neuron of "two" sees up to 2 x 3 x 3 spikes, one of "three" all 8; "one" is cut in two.
    assert broken == [("two", "axons_in", 18, 7), ("three", "axons_in", 8, 7)]
    assert report.dynamic.label == report.static[0].total.label == "unmapped, at least"
    assert report.dynamic.all_samples.value == 19904.9
    assert [(row.layer, row.cores) for row in report.cores] == [
        ("one", 2),
        ("two", 1),
        ("three", 1),
    ]


def test_each_core_that_a_spike_reaches_costs_a_message():
    """ "two" on two cores, its channels apart: every spike of "one" goes to both."""
    small = replace(LOIHI, limits=replace(LOIHI.limits, neurons_per_core=4, axons_in=32))
    mapping = plan(NETWORK, small, "host")
    tiles = {row.layer: row.cores for row in mapping.layers()}
    assert (tiles["two"], tiles["three"]) == (2, 1)
    report = energy(NETWORK, TRACE, small)
    assert report == energy(NETWORK, TRACE, small, mapping=mapping)
    layers = {row.layer: row for row in report.layers}
    reached = mapping.routes["one"].messages
    assert layers["one"].messages == (TRACE.fired["one"] * reached).sum() > 67
    assert layers["one"].hops_ew + layers["one"].hops_ns > 0
    terms = {term.name: term for term in report.terms}
    assert terms["messages"].amount.value == pytest.approx(1.7 * terms["messages"].count)
    assert terms["hops_ew"].amount.value == 3 * terms["hops_ew"].count
    assert [terms[name].count for name in ("synops", "updates_active")] == [280, 145]


def test_the_busiest_core_lengthens_the_step():
    """65,536 synaptic operations and 256 updates a step: 465 + 65536 x 3.5 + 256 x 8.4 ns."""
    fc = Dense("fc", np.ones((256, 256), np.float32))
    layer = Layer("fc", IF(np.array(1e6, np.float32)), (256,), (Synapse("input", (fc,)),))
    network = Network("input", (256,), (layer,), "fc", Contract(2, input_coding="spikes"))
    trace = simulate(network, np.ones((2, 3, 256), np.float32), 2)
    report = energy(network, trace, LOIHI, throttled_us=100)
    free, throttled = report.static[:2]
    assert free.step_us[0] == throttled.step_us[0] == (465 + 65536 * 3.5 + 256 * 8.4) / 1000
    assert free.total.grade == "S"
    assert [term.name for term in report.host] == ["host_spikes_in"]
    assert report.host[0].count == 2 * 3 * 256
    assert report.first_layer == "none"
    # On two cores each makes half; a layer that does not fit at all has a time nobody knows.
    two = replace(LOIHI, limits=replace(LOIHI.limits, neurons_per_core=255))
    half = (465 + 32768 * 3.5 + 128 * 8.4) / 1000
    assert energy(network, trace, two).static[0].step_us[0] == half
    none = replace(LOIHI, limits=replace(LOIHI.limits, axons_in=255))
    assert energy(network, trace, none).static[0].step_us[0] == 5.8


def test_graded_layers_have_no_price_on_a_chip_of_spikes():
    kernel = Conv("conv", np.ones((1, 1, 2, 2), np.float32))
    layers = (
        Layer("a", IF(np.array(0.5, np.float32)), (1, 3, 3), (Synapse("input"),)),
        Layer("join", Sum(), (1, 3, 3), (Synapse("a"), Synapse("a"))),
        Layer("b", IF(np.array(0.5, np.float32)), (1, 2, 2), (Synapse("join", (kernel,)),)),
    )
    network = Network("input", (1, 3, 3), layers, "b", Contract(1))
    trace = simulate(network, np.ones((1, 1, 3, 3), np.float32), 1)
    report = energy(network, trace, LOIHI)
    assert report.dynamic.all_samples.value is None
    assert [name for name in report.unpriced if not name.startswith("host")] == [
        "macs",
        "graded_messages",
    ]
    assert [(e.layer, e.limit) for e in report.unmapped] == [("join", "graded_bits")]
    assert report.dynamic.label == "unmapped, at least"
    # Bare arithmetic has a price for them: 16 products, and the 9 additions of the input.
    assert energy(network, trace, CMOS).dynamic.all_samples.value == 81.7  # 73.6 + 8.1
    host = energy(network, trace, CMOS, first_layer="host")
    assert host.dynamic.all_samples.value == 73.6
    assert [(term.name, term.count) for term in host.host] == [("host_values_in", 9)]


def test_a_readout_of_sums():
    fc = Dense("fc", np.ones((3, 8), np.float32))
    out = Layer("out", Sum(), (3,), (Synapse("two", (Flatten("flat"), fc)),))
    network = replace(NETWORK, layers=(*NETWORK.layers[:2], out), output="out")
    report = energy(network, simulate(network, toy_network.frame(), 4), LOIHI)
    last = report.layers[-1]
    assert (last.spikes, last.updates, last.active) == (0, 12, 9)
    assert [(t.name, t.count) for t in report.host][-1] == ("host_values_out", 12)
    assert report.dynamic.all_samples.value == 19904.9


def test_paths_of_unequal_length_need_relays():
    skip = Synapse("one", (Flatten("flat1"), Dense("skip", np.zeros((3, 32), np.float32))))
    three = NETWORK.layers[2]
    three = replace(three, synapses=(*three.synapses, skip))
    network = replace(NETWORK, layers=(*NETWORK.layers[:2], three))
    trace = simulate(network, toy_network.frame(), 4)
    report = energy(network, trace, LOIHI)
    assert any("32 relay neurons" in line for line in report.assumptions)
    assert not any("relay" in line for line in energy(NETWORK, TRACE, LOIHI).assumptions)
    # Zero weights are stored and paid for, unless they are asked to be skipped; each of the 67
    # spikes passes a relay, which is one synapse, one active update and one more message.
    terms = {term.name: term.count for term in report.terms}
    assert terms["synops"] == 280 + 67 * 3 + 67
    assert energy(network, trace, LOIHI, zeros="skip").terms[0].count == 280 + 67
    assert terms["updates_active"] == 145 + 67
    assert terms["updates_active"] + terms["updates_inactive"] == 172 + 4 * 32
    assert terms["messages"] == 87 + 67 + 67
    # The arithmetic of a processor needs no relays.
    assert energy(network, trace, CMOS).terms[0].count == 280 + 67 * 3


def test_a_readout_of_membranes_is_updated_while_it_is_not_zero():
    fc = Dense("fc", np.ones((3, 8), np.float32))
    neuron = LI(np.float32(0.5), leak=np.float32(0.25))
    out = Layer("out", neuron, (3,), (Synapse("two", (Flatten("flat"), fc)),))
    network = replace(NETWORK, layers=(*NETWORK.layers[:2], out), output="out")
    trace = simulate(network, toy_network.frame(), 4)
    last = energy(network, trace, LOIHI).layers[-1]
    assert (last.spikes, last.updates, last.active) == (0, 12, 12)


def test_a_loop_of_several_layers_is_said_to_take_one_step():
    neuron = IF(np.float32(0.9))
    there, back = Dense("w", np.ones((3, 2), np.float32)), Dense("x", np.ones((2, 3), np.float32))
    layers = (
        Layer("a", neuron, (2,), (Synapse("input"), Synapse("b", (back,)))),
        Layer("b", neuron, (3,), (Synapse("a", (there,)),)),
    )
    network = Network("input", (2,), layers, "b", Contract(4, input_coding="spikes"))
    trace = simulate(network, np.ones((1, 2), np.float32), 4)
    report = energy(network, trace, LOIHI)
    assert any("a loop of several layers" in line for line in report.assumptions)
    assert not any("loop" in line for line in energy(NETWORK, TRACE, LOIHI).assumptions)
    # 2 spikes of the input at each of 4 steps; all of b's 3 fire, and reach 2 neurons a step later.
    assert trace.fired["b"].sum() == 12
    assert report.layers[0].synops == 4 * 2 + 3 * 3 * 2


def test_an_integer_network_is_priced_like_any_other():
    weights = [np.full((5, 4), 40, np.float32), np.full((2, 5), -3, np.float32)]
    weights[1][0] = 100
    layers = (
        Layer(
            "a",
            LIF(np.array(0.25, np.float32), np.array(100, np.float32)),
            (5,),
            (Synapse("input", (Dense("fa", weights[0]),)),),
        ),
        Layer("out", Sum(), (2,), (Synapse("a", (Dense("fb", weights[1]),)),)),
    )
    arithmetic = Integer(8, {"a": 6, "out": 0}, {"a": 1})
    network = Network("input", (4,), layers, "out", Contract(2, arithmetic=arithmetic))
    trace = simulate(network, np.ones((3, 4), np.float32), 2)
    assert trace.outputs.dtype == np.int32
    assert trace.fired["a"].tolist() == [[3] * 5, [3] * 5]  # 160 > 100, and no rest remains
    report = energy(network, trace, LOIHI)
    assert report.terms[0].count == 3 * 2 * 5 * 2
    assert report.terms[1].count == 3 * 2 * (5 + 2)
    assert report.dynamic.per_inference.value == 1623.0  # 472 + 1134 + 17
    cmos = energy(network, trace, CMOS)
    assert cmos.number_format == "int8"
    assert cmos.dynamic.per_inference.value == 8.0  # 2 + 6


def test_an_input_that_changes_is_not_computed_once():
    x = np.stack([toy_network.frame(), 0 * toy_network.frame()])
    trace = simulate(NETWORK, x, 2)
    report = energy(NETWORK, trace, CMOS)
    assert report.first_layer == "per_step"
    assert next(term.count for term in report.terms if term.name == "macs") == 400
    host = energy(NETWORK, trace, LOIHI).host
    assert [(t.name, t.count) for t in host[:2]] == [("host_macs", 400), ("host_values_in", 64)]
    with pytest.raises(RequestError, match="differ from step to step"):
        energy(NETWORK, trace, CMOS, first_layer="once")


def test_wrong_requests_are_named():
    spikes = NETWORK.with_contract(replace(NETWORK.contract, input_coding="spikes"))
    for network, chip, choice, code, message in (
        (NETWORK, CMOS, {"first_layer": "hoist"}, "E_FIRST_LAYER", "did you mean 'host'"),
        (spikes, CMOS, {"first_layer": "host"}, "E_FIRST_LAYER", "the input 'input' is spikes"),
        (NETWORK, CMOS, {"number_format": "int4"}, "E_FORMAT", "fp32, fp16, int8"),
        (NETWORK, LOIHI, {"number_format": "int8"}, "E_FORMAT", "one number format"),
        (NETWORK, CMOS, {"zeros": "drop"}, "E_REQUEST", "count or skip"),
        (NETWORK, CMOS, {"samples": 0}, "E_REQUEST", "samples is 0"),
    ):
        with pytest.raises(RequestError, match=message) as caught:
            energy(network, TRACE, chip, **choice)
        assert caught.value.code == code


@settings(max_examples=15, deadline=None, derandomize=True)
@given(networks(), st.integers(0, 1000))
def test_any_network_is_priced_and_adds_up(network, seed):
    steps = network.contract.steps
    traces = [simulate(network, frames(network, n, seed + n), steps) for n in (1, 2)]
    whole = energy(network, join(traces), LOIHI)
    parts = [energy(network, trace, LOIHI) for trace in traces]
    for index, term in enumerate(whole.terms):
        same = [t.count for part in parts for t in part.terms if t.name == term.name]
        assert term.count == sum(same), (index, term.name)
    amount = whole.dynamic.all_samples
    assert amount.low <= amount.at_least
    if amount.value is not None:
        assert amount.low <= amount.value == amount.at_least <= amount.high
        assert amount.value == pytest.approx(sum(t.amount.value for t in whole.terms), rel=1e-12)
    names = [layer.layer for layer in whole.layers]
    assert [name for name in names if name in network.by_name] == list(network.by_name)
    tiles = {row.layer: row.cores for row in whole.cores}
    lowered = plan(network, LOIHI, whole.first_layer).low.network
    for layer in whole.layers:
        assert layer.synops_eff <= layer.synops
        assert layer.mac_nz <= layer.mac_dense
        assert layer.ac_dense + layer.ac_conv <= layer.ac
        assert layer.active is not None
        assert layer.active <= layer.updates
        targets = {o.name for o in lowered.layers for s in o.synapses if s.source == layer.layer}
        assert layer.sent <= layer.spikes
        assert layer.sent <= layer.messages + layer.graded_messages
        assert layer.messages <= layer.spikes * sum(tiles[name] for name in targets)
