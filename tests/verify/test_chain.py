"""Planted faults: the verdict, and the place it names, on a network small enough to see through."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError
from snnpipe.network.contract import Contract, Grid
from snnpipe.network.grid import snap
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import IF, LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Trace, Witness
from snnpipe.verify.chain import Arrow, Findings, Opened, Request, verify
from snnpipe.verify.replay import replay
from snnpipe.verify.verdict import Outcome, Strength

SAMPLES = 24


def one(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


def folded_network(seed: int = 5) -> Network:
    """Conv, conv, dense read-out; weights off every grid."""
    rng = np.random.default_rng(seed)

    def normal(scale: float, *shape: int) -> NDArray[np.float32]:
        return rng.normal(0, scale, shape).astype(np.float32)

    conv1 = Conv("conv1", normal(1.5, 4, 1, 3, 3), normal(0.2, 4), padding=(1, 1))
    conv2 = Conv("conv2", normal(0.4, 6, 4, 3, 3), normal(0.2, 6), (2, 2), (1, 1))
    fc = Dense("fc", normal(0.3, 5, 6 * 16), normal(0.1, 5))
    neuron = LIF(one(0.25), one(1.0))
    layers = (
        Layer("lif1", neuron, (4, 8, 8), (Synapse("input", (conv1,)),)),
        Layer("lif2", neuron, (6, 4, 4), (Synapse("lif1", (conv2,)),)),
        Layer("readout", Sum(), (5,), (Synapse("lif2", (Flatten("flatten"), fc)),)),
    )
    contract = Contract(steps=4, input_scale=1 / 16, input_levels=16)
    return Network("input", (1, 8, 8), layers, "readout", contract)


class Broken:
    def run(self, x: Any, steps: int, record: Any = None) -> Trace:
        raise CouldNotRunError("E_MISSING", "the library went away")


def with_operation(network: Network, layer: str, **changes: Any) -> Network:
    """The network with the weights of one layer's last operation edited."""
    edited = []
    for old in network.layers:
        new = old
        if old.name == layer:
            (synapse,) = old.synapses
            last = replace(synapse.operations[-1], **changes)  # type: ignore[arg-type]
            operations = (*synapse.operations[:-1], last)
            new = replace(old, synapses=(replace(synapse, operations=operations),))
        edited.append(new)
    return replace(network, layers=tuple(edited))


def samples(network: Network, n: int = SAMPLES) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng(11)
    x = rng.integers(0, 17, (n, *network.input_shape)).astype(np.uint8)
    return x, rng.integers(0, 5, n)


def witness_of(network: Network, n: int = 6) -> Witness:
    """The recording of a module that computes exactly this network."""
    x, labels = samples(network, n)
    trace = simulate(network, network.contract.frames(x), network.contract.steps)
    return Witness(x, labels, np.arange(n), trace.outputs, trace.spikes)


def request(network: Network, faulty: Network, **more: Any) -> Request:
    x, labels = samples(network)
    return Request(network, x, labels, {"engine": engine(faulty)}, **more)


def engine(network: Network) -> Opened:
    """The event engine with a network of its own, right or faulty."""
    return Opened(plugins.load("runtimes", "event").open(network, None))


def arrow(findings: Findings, target: str) -> Arrow:
    (found,) = [a for a in findings.arrows if a.target == target]
    return found


def test_a_right_runtime_passes_and_equality_is_proven() -> None:
    folded = folded_network()
    network = snap(folded)
    findings = verify(request(network, network, folded=folded, witness=witness_of(folded)))
    assert findings.outcome is Outcome.PASSED
    assert [a.target for a in findings.arrows] == ["folded", "snapped", "engine"]
    engine = arrow(findings, "engine")
    assert engine.strength is Strength.PROVEN
    assert engine.differences is not None
    assert engine.differences.samples == SAMPLES
    assert sum(engine.differences.decisions.values()) == SAMPLES * 4 * (256 + 96)
    assert sum(engine.differences.currents_compared.values()) == 8 * 4 * (256 + 96 + 5)
    assert sum(engine.differences.spikes.values()) > 1000


def test_accuracy_of_a_prefix_is_that_of_a_shorter_run() -> None:
    network = snap(folded_network())
    findings = verify(request(network, network))
    x, _ = samples(network)
    short = simulate(network, network.contract.frames(x), 2)
    prefix = findings.traces["float"].until(2)
    assert (prefix.outputs == short.outputs).all()
    assert all((prefix.fired[name] == short.fired[name]).all() for name in short.fired)


def conv2_weight(network: Network) -> NDArray[np.float32]:
    operation = network.layer("lif2").synapses[0].operations[0]
    assert isinstance(operation, Conv)
    return operation.weight.copy()


def fault_one_weight(network: Network) -> Network:
    """One weight of conv2 off by a single grid step: below what spikes alone would show."""
    arithmetic = network.contract.arithmetic
    assert isinstance(arithmetic, Grid)
    weight = conv2_weight(network)
    weight[3, 1, 0, 2] += np.float32(2.0 ** -arithmetic.weight_exponents["lif2"])
    return with_operation(network, "lif2", weight=weight)


def fault_transposed(network: Network) -> Network:
    return with_operation(network, "lif2", weight=conv2_weight(network).transpose(0, 1, 3, 2))


def fault_flipped(network: Network) -> Network:
    return with_operation(network, "lif2", weight=conv2_weight(network)[:, :, ::-1, ::-1])


def fault_bias_dropped(network: Network) -> Network:
    return with_operation(network, "lif2", bias=None)


def fault_threshold(network: Network) -> Network:
    layers = [
        replace(x, neuron=LIF(one(0.25), one(1.01))) if x.name == "lif2" else x
        for x in network.layers
    ]
    return replace(network, layers=tuple(layers))


def fault_subtract(network: Network) -> Network:
    return network.with_contract(replace(network.contract, reset="subtract"))


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        (fault_one_weight, "lif2"),
        (fault_transposed, "lif2"),
        (fault_flipped, "lif2"),
        (fault_bias_dropped, "lif2"),
        (fault_threshold, "lif2"),
        (fault_subtract, "lif1"),
    ],
)
def test_a_fault_in_a_runtime_is_named_where_it_is(fault: Any, layer: str) -> None:
    network = snap(folded_network())
    findings = verify(request(network, fault(network)))
    assert findings.outcome is Outcome.FAILED
    engine = arrow(findings, "engine")
    assert engine.verdict.outcome is Outcome.FAILED
    assert engine.differences is not None
    assert engine.differences.first is not None
    assert engine.differences.first.layer == layer
    assert f"layer '{layer}'" in engine.verdict.sentence
    if layer == "lif2":
        assert not engine.differences.changed["lif1"]
        assert not engine.differences.currents_changed["lif1"]


def test_subtract_for_zero_shows_after_the_first_spike_with_its_membrane() -> None:
    network = snap(folded_network())
    findings = verify(request(network, fault_subtract(network)))
    first = arrow(findings, "engine").differences.first  # type: ignore[union-attr]
    assert first is not None
    assert first.kind == "spike"
    assert first.step >= 1
    x, _ = samples(network)
    seen: dict[int, float] = {}

    def watch(layer: str, step: int, u: NDArray[Any], _: Any) -> None:
        if layer == first.layer:
            seen[step] = float(u[first.sample][first.neuron])

    simulate(network, network.contract.frames(x), 4, watch=watch)
    assert first.membrane == seen[first.step]
    assert first.threshold == 1.0
    assert (first.membrane > 1.0) is bool(first.expected)


def tie_network(compare: str) -> Network:
    """Two inputs of 1/2 bring the first neuron exactly to its threshold."""
    dense = Dense("dense", np.array([[1.0, 1.0], [1.5, 1.0]], np.float32))
    layer = Layer("if1", IF(one(1.0)), (2,), (Synapse("input", (dense,)),))
    contract = Contract(steps=1, compare=compare, input_scale=0.5, input_levels=1)  # type: ignore[arg-type]
    return snap(Network("input", (2,), (layer,), "if1", contract))


def test_greater_or_equal_for_greater_is_caught_on_a_made_tie() -> None:
    right, wrong = tie_network("gt"), tie_network("ge")
    x, labels = np.array([[1, 1]], np.uint8), np.array([0])
    for network, outcome in ((right, Outcome.PASSED), (wrong, Outcome.FAILED)):
        findings = verify(Request(right, x, labels, {"engine": engine(network)}))
        assert findings.outcome is outcome
    first = arrow(findings, "engine").differences.first  # type: ignore[union-attr]
    assert first is not None
    assert (first.layer, first.step, first.neuron) == ("if1", 0, (0,))
    assert first.membrane == first.threshold == 1.0


def test_the_witness_fails_in_the_layer_that_was_folded_wrongly() -> None:
    folded = folded_network()
    witness = witness_of(folded)
    assert all(layer.wrong == 0 for layer in replay(folded, witness))
    for fault in (fault_transposed, fault_bias_dropped, fault_threshold):
        judged = {layer.layer: layer for layer in replay(fault(folded), witness)}
        assert judged["lif2"].wrong > 0
        assert judged["lif1"].wrong == 0
        assert judged["readout"].wrong == 0
    findings = verify(
        request(snap(folded), snap(folded), folded=fault_bias_dropped(folded), witness=witness)
    )
    assert arrow(findings, "folded").verdict.outcome is Outcome.FAILED
    assert "layer 'lif2'" in arrow(findings, "folded").verdict.sentence


def test_a_witness_of_swapped_samples_fails_in_the_first_layer() -> None:
    folded = folded_network()
    witness = witness_of(folded)
    swapped = replace(witness, inputs=witness.inputs[::-1].copy())
    assert replay(folded, swapped)[0].wrong > 0


def test_without_a_certificate_a_run_is_certified_by_replay() -> None:
    network = folded_network()
    findings = verify(request(network, network))
    engine = arrow(findings, "engine")
    assert engine.strength is Strength.REPLAYED
    assert engine.verdict.outcome is Outcome.PASSED
    decisions = SAMPLES * 4 * (256 + 96)
    assert f"of {decisions:,} spike decisions on {SAMPLES} samples" in engine.verdict.sentence
    assert "> and >= are not told apart (exact ties: 0)" in engine.verdict.sentence
    assert [layer.layer for layer in engine.replay] == ["lif1", "lif2", "readout"]
    assert sum(layer.wrong for layer in engine.replay) == 0
    assert sum(layer.certain for layer in engine.replay[:2]) > 0.999 * decisions
    assert engine.replay[2].judged == SAMPLES * 4 * 5


@pytest.mark.parametrize(
    "fault", [fault_transposed, fault_flipped, fault_bias_dropped, fault_threshold]
)
def test_without_a_certificate_a_fault_is_wrong_in_its_layer_only(fault: Any) -> None:
    network = folded_network()
    engine = arrow(verify(request(network, fault(network))), "engine")
    assert engine.verdict.outcome is Outcome.FAILED
    assert engine.verdict.sentence.startswith("layer 'lif2': ")
    assert "± " in engine.verdict.sentence
    assert [layer.wrong > 0 for layer in engine.replay] == [False, True, False]


def test_without_a_certificate_greater_or_equal_passes_and_it_is_said() -> None:
    network = folded_network()
    with_ge = network.with_contract(replace(network.contract, compare="ge"))
    engine = arrow(verify(request(network, with_ge)), "engine")
    assert engine.verdict.outcome is Outcome.PASSED
    assert "> and >= are not told apart (exact ties: 0)" in engine.verdict.sentence


def test_a_tie_without_rounding_tells_them_apart_without_a_certificate() -> None:
    """One input of 1/2, weights that are powers of two: nothing can be rounded."""
    dense = Dense("dense", np.array([[2.0], [0.5]], np.float32))
    layer = Layer("if1", IF(one(1.0)), (2,), (Synapse("input", (dense,)),))
    right = Network("input", (1,), (layer,), "if1", Contract(1, input_scale=0.5))
    wrong = right.with_contract(replace(right.contract, compare="ge"))
    x, labels = np.array([[1]], np.uint8), np.array([0])
    for network, outcome in ((right, Outcome.PASSED), (wrong, Outcome.FAILED)):
        found = arrow(verify(Request(right, x, labels, {"engine": engine(network)})), "engine")
        assert found.verdict.outcome is outcome
        assert [layer.ties for layer in found.replay] == [1]
        told = "> and >= are told apart (exact ties: 1)" in found.verdict.sentence
        assert told is (outcome is Outcome.PASSED)
    assert "membrane 1 ± 0, threshold 1" in found.verdict.sentence


def test_a_run_that_was_not_snapped_is_verified() -> None:
    folded = folded_network()
    findings = verify(request(folded, folded, folded=folded, witness=witness_of(folded)))
    assert findings.outcome is Outcome.PASSED
    assert [(a.source, a.target) for a in findings.arrows] == [
        ("trained", "folded"),
        ("folded", "network"),
        ("network", "engine"),
    ]
    assert "not snapped to a grid" in arrow(findings, "network").verdict.sentence
    other = fault_bias_dropped(folded)
    findings = verify(request(other, other, folded=folded, witness=witness_of(folded)))
    assert arrow(findings, "network").verdict.outcome is Outcome.FAILED
    assert "is not the folded one, in" in arrow(findings, "network").verdict.sentence


class Lying:
    """A runtime whose trace is changed on the way."""

    def __init__(self, network: Network, change: Any) -> None:
        self.network, self.change = network, change

    def run(self, x: Any, steps: int, record: Any = None) -> Trace:
        trace = simulate(self.network, x, steps, record)
        return replace(trace, **self.change(trace))


@pytest.mark.parametrize("network", [folded_network(), snap(folded_network())])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: {"spikes": {"lif1": t.spikes["lif1"]}}, "nothing as spikes of 'lif2'"),
        (lambda t: {"outputs": t.outputs[:3]}, r"shape \[3, 24, 5\] as outputs; expected \[4, 24"),
        (lambda t: {"currents": {"lif1": t.outputs}}, "as currents of 'lif1'"),
    ],
)
def test_a_trace_that_lacks_something_cannot_be_judged(
    network: Network, change: Any, what: str
) -> None:
    x, labels = samples(network)
    asked = Request(network, x, labels, {"engine": Opened(Lying(network, change))})
    found = arrow(verify(asked), "engine")
    assert found.verdict.outcome is Outcome.COULD_NOT_RUN
    assert re.search(what, found.verdict.sentence)


def test_what_could_not_run_is_said_and_the_rest_goes_on() -> None:
    network = snap(folded_network())
    x, labels = samples(network)
    runtimes = {
        "missing": Opened(CouldNotRunError("E_MISSING", "not installed here")),
        "broken": Opened(Broken()),
        "engine": engine(network),
    }
    findings = verify(Request(network, x, labels, runtimes))
    assert findings.outcome is Outcome.COULD_NOT_RUN
    assert arrow(findings, "missing").verdict.sentence == "not installed here"
    assert arrow(findings, "broken").verdict.sentence == "the library went away"
    assert arrow(findings, "engine").verdict.outcome is Outcome.PASSED


def test_a_broken_certificate_fails_the_snapped_arrow() -> None:
    folded = folded_network()
    network = snap(folded)
    weight = conv2_weight(network)
    weight[0, 0, 0, 0] += np.float32(2.0**-21 * 1.5)
    broken = with_operation(network, "lif2", weight=weight * 4)
    findings = verify(request(broken, broken, folded=folded, witness=witness_of(folded)))
    assert arrow(findings, "snapped").verdict.outcome is Outcome.FAILED
    assert "layer 'lif2'" in arrow(findings, "snapped").verdict.sentence


def test_batches_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from snnpipe.verify import chain

    network = snap(folded_network())
    layer = network.layer("readout")
    dense = layer.synapses[0].operations[-1]
    assert isinstance(dense, Dense)
    x, labels = samples(network)
    x[:13] = 0  # nothing fires there, so the fault is first seen in sample 13
    asked = Request(network, x, labels, {"engine": engine(fault_threshold(network))})
    whole = verify(asked)
    monkeypatch.setattr(chain, "BATCH", 5)
    parts = verify(asked)
    first, again = (arrow(f, "engine").differences.first for f in (whole, parts))  # type: ignore[union-attr]
    assert first is not None
    assert first.sample >= 13
    assert first == again
    assert (whole.traces["float"].outputs == parts.traces["float"].outputs).all()
    for name, count in whole.traces["float"].fired.items():
        assert (count == parts.traces["float"].fired[name]).all()


def test_batches_change_nothing_of_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    from snnpipe.verify import chain

    network = folded_network()
    asked = request(network, fault_threshold(network))
    whole = arrow(verify(asked), "engine")
    monkeypatch.setattr(chain, "BATCH", 5)
    parts = arrow(verify(asked), "engine")
    assert whole.verdict == parts.verdict
    assert [replace(x, first=None) for x in whole.replay] == [
        replace(x, first=None) for x in parts.replay
    ]
    first, again = (found.replay[1].first for found in (whole, parts))
    assert first is not None
    assert again is not None
    assert (first.sample, first.step, first.neuron) == (again.sample, again.step, again.neuron)
