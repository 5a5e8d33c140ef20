"""The ONNX target: what it writes, byte for byte the same, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from random_networks import dyadic, frames, networks
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.export.targets.onnx import PLUGIN, TABLE
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.graph import graph_sha256
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
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Sum, Threshold
from snnpipe.network.shapes import shape_after
from snnpipe.network.simulate import simulate
from snnpipe.network.support import PARTS, Recurrent
from snnpipe.network.trace import unpack

STEP = {"form": "step"}
RNG = np.random.default_rng(5)


def array(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


def example(contract: Contract | None = None) -> Network:
    """Conv, per-channel LIF, a pool whose sum branches into two maps, an IF with an odd reset."""
    rng = np.random.default_rng(5)
    pool = AvgPool("pool", (2, 2), (2, 1), (1, 0))
    conv1 = Conv("conv1", dyadic(rng, (4, 1, 3, 2)), dyadic(rng, (4,)), (2, 1), (1, 0), (1, 2), 2)
    left = Conv("left", dyadic(rng, (3, 4, 1, 1)), dyadic(rng, (3,)))
    right = Conv("right", dyadic(rng, (3, 4, 1, 1)))
    decay, threshold = rng.integers(0, 8, (4, 1, 1)) / 8, rng.integers(1, 5, (4, 1, 1)) / 4
    lif1 = LIF(array(decay), array(threshold), array(0.25))
    lif2 = IF(array(0.75), array(-0.5))
    layers = (
        Layer("lif1", lif1, (4, 4, 4), (Synapse("in", (conv1,)),)),
        Layer("pooled", Sum(), (4, 3, 3), (Synapse("lif1", (pool,)),)),
        Layer("both", Sum(), (3, 3, 3), (Synapse("pooled", (left,)),)),
        Layer("lif2", lif2, (3, 3, 3), (Synapse("both"), Synapse("pooled", (right,)))),
        Layer("copy", lif2, (3, 3, 3), (Synapse("lif2"),)),
        Layer(
            "out",
            Sum(),
            (5,),
            (
                Synapse("copy", (Flatten("flat"), Dense("fc", dyadic(rng, (5, 27))))),
                Synapse("lif2", (Flatten("flat2"), Dense("fc2", dyadic(rng, (5, 27))))),
            ),
        ),
    )
    return Network("in", (2, 7, 6), layers, "out", contract or Contract(3, input_levels=4))


def written(network: Network, folder: Path) -> onnx.ModelProto:
    PLUGIN.write(network, folder, STEP)
    return onnx.load(folder / "network.onnx")


def test_names_shapes_and_metadata_are_the_networks(tmp_path: Path) -> None:
    network = example(Contract(3, compare="ge", reset="value", input_levels=4))
    facts = PLUGIN.write(network, tmp_path, STEP)
    model = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(model, full_check=True)
    ends = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert ends == {
        "x": ["N", 2, 7, 6],
        "v.lif1": ["N", 4, 4, 4],
        "v.lif2": ["N", 3, 3, 3],
        "v.copy": ["N", 3, 3, 3],
        "out:current": ["N", 5],
        "v.lif1.next": ["N", 4, 4, 4],
        "v.lif2.next": ["N", 3, 3, 3],
        "v.copy.next": ["N", 3, 3, 3],
    }
    assert facts["inputs"] + facts["outputs"] == list(ends)
    assert (facts["file"], facts["form"], facts["opset"]) == ("network.onnx", "step", 21)
    assert (model.ir_version, {o.domain: o.version for o in model.opset_import}) == (
        10,
        {"": 21, "snnpipe": 1},
    )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["snnpipe.contract"] == network.contract.to_json()
    assert metadata["snnpipe.graph_sha256"] == graph_sha256(network)
    assert (metadata["snnpipe.form"], metadata["snnpipe.T"]) == ("step", "3")
    nodes = {node.name: node for node in model.graph.node}
    assert list(nodes["conv1"].output) == ["lif1:current"]
    assert list(nodes["pool.mean"].output) == ["pooled:current"]
    assert list(nodes["lif1"].input)[2:] == ["lif1.decay", "lif1.threshold", "lif1.v_reset"]
    assert (nodes["lif1"].op_type, nodes["lif2"].op_type) == ("LIF_ge_value", "IF_ge_value")
    assert {f.name: f.doc_string for f in model.functions} == {
        "IF_ge_value": "u = v + current; spikes = u >= threshold; "
        "v_next = u - u*spikes + v_reset*spikes",
        "LIF_ge_value": "u = decay*v + current; spikes = u >= threshold; "
        "v_next = u - u*spikes + v_reset*spikes",
    }
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    assert weights["lif1.threshold"].shape == (1, 4, 1, 1)
    assert weights["lif2.threshold"].shape == (1,)
    conv = network.layers[0].synapses[0].operations[0]
    assert isinstance(conv, Conv)
    assert conv.bias is not None
    assert np.array_equal(weights["conv1.weight"], conv.weight)
    assert np.array_equal(weights["conv1.bias"], conv.bias)


@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_onnx_reference_evaluator_gives_the_reference_spikes(
    tmp_path: Path, compare: Any, reset: Any
) -> None:
    network = example(Contract(3, compare=compare, reset=reset, input_levels=4))
    PLUGIN.write(network, tmp_path, STEP)
    evaluator = onnx.reference.ReferenceEvaluator(str(tmp_path / "network.onnx"))
    x = frames(network, 3, 8, steps=3)
    expected = simulate(network, x, 3)
    states = {
        f"v.{layer.name}": np.zeros((3, *layer.shape), np.float32)
        for layer in network.layers
        if not isinstance(layer.neuron, Sum)
    }
    assert unpack(expected.spikes["copy"], (3, 3, 3)).any()
    for t in range(3):
        found = evaluator.run(None, {"x": x[t], **states})
        assert np.array_equal(found[0], expected.outputs[t])
        states = dict(zip(states, found[1:], strict=True))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_give_checked_files_and_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, network: Network
) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    onnx.checker.check_model(written(network, one), full_check=True)
    PLUGIN.write(replace(network), two, STEP)
    assert (one / "network.onnx").read_bytes() == (two / "network.onnx").read_bytes()


def test_another_weight_gives_other_bytes(tmp_path: Path) -> None:
    network = example()
    PLUGIN.write(network, tmp_path, STEP)
    before = (tmp_path / "network.onnx").read_bytes()
    conv = network.layers[0].synapses[0].operations[0]
    assert isinstance(conv, Conv)
    weight = conv.weight.copy()
    weight[1, 0, 2, 1] += np.float32(2**-20)
    changed = replace(network.layers[0], synapses=(Synapse("in", (replace(conv, weight=weight),)),))
    PLUGIN.write(replace(network, layers=(changed, *network.layers[1:])), tmp_path, STEP)
    assert (tmp_path / "network.onnx").read_bytes() != before


EXAMPLES: dict[type, Operation | Neuron] = {
    Dense: Dense("part", dyadic(RNG, (3, 32))),
    Conv: Conv("part", dyadic(RNG, (2, 2, 3, 3)), None, (1, 1), (1, 1)),
    Conv1d: Conv1d("part", dyadic(RNG, (2, 8, 3)), None, 2),
    Scale: Scale("part", dyadic(RNG, (2, 1, 1))),
    SumPool: SumPool("part", (2, 2), (2, 2)),
    AvgPool: AvgPool("part", (2, 2), (2, 2)),
    Flatten: Flatten("part"),
    Delay: Delay("part", 2),
    LIF: LIF(array(0.25), array(1)),
    IF: IF(array(1)),
    LI: LI(array(0.25)),
    CubaLIF: CubaLIF(array(0.5), array(0.25), array(1)),
    CubaLI: CubaLI(array(0.5), array(0.25)),
    Threshold: Threshold(array(1)),
    Sum: Sum(),
}
"""One of every operation and neuron, on a (2, 4, 4) image."""


def network_of(kind: type) -> Network:
    """A network with this part of `support.PARTS` in it, called ``part``."""
    shape: tuple[int, ...] = (2, 4, 4)
    made = EXAMPLES.get(kind, LIF(array(0.25), array(1)))
    if isinstance(made, get_args(Neuron)):
        back = (Synapse("part"),) if kind is Recurrent else ()
        layer = Layer("part", made, shape, (Synapse("in"), *back))
        return Network("in", shape, (layer,), "part", Contract(2))
    before = {Dense: (Flatten("flat"),), Conv1d: (Flatten("flat", 0, 1),)}.get(kind, ())
    chain = (*before, made)
    for operation in chain:
        shape = shape_after(operation, shape)
    layer = Layer("out", Sum(), shape, (Synapse("in", chain),))
    return Network("in", (2, 4, 4), (layer,), "out", Contract(2))


def test_the_table_knows_every_part() -> None:
    assert set(TABLE) == set(PARTS)


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_is_written(tmp_path: Path, kind: type) -> None:
    assert TABLE[kind] is None
    model = written(network_of(kind), tmp_path)
    assert "part" in {n.name.partition(".")[0] for n in model.graph.node}


@pytest.mark.parametrize("kind", PARTS)
def test_a_reason_in_the_table_is_a_refusal_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    table = {**TABLE, kind: "no such part"}
    monkeypatch.setattr("snnpipe.export.targets.onnx.TABLE", table)
    where = "synapse from 'part' into" if kind is Recurrent else rf"\({kind.__name__},"
    with pytest.raises(RequestError, match=rf"{where} layer .*no such part") as error:
        PLUGIN.write(network_of(kind), tmp_path, STEP)
    assert error.value.code == "E_UNSUPPORTED"
    assert not (tmp_path / "network.onnx").exists()


def test_integer_networks_are_sent_to_nir_and_netx(tmp_path: Path) -> None:
    network = network_of(LIF)
    integer = network.with_contract(network.contract.with_arithmetic(Integer(8, {"part": 6})))
    with pytest.raises(RequestError, match=r"8-bit.*written by nir and netx") as error:
        PLUGIN.write(integer, tmp_path, STEP)
    assert error.value.code == "E_UNSUPPORTED"


def test_two_operations_of_one_name_are_refused(tmp_path: Path) -> None:
    one, two = (Conv("conv", dyadic(RNG, (2, 2, 1, 1))) for _ in range(2))
    layer = Layer("part", IF(array(1)), (2, 4, 4), (Synapse("in", (one,)), Synapse("in", (two,))))
    network = Network("in", (2, 4, 4), (layer,), "part", Contract(2))
    with pytest.raises(RequestError, match=r"'conv\.weight'") as error:
        PLUGIN.write(network, tmp_path, STEP)
    assert error.value.code == "E_NAME"


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "snnpipe.export.targets._onnx_forms", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CouldNotRunError, match=r"snnpipe\[onnx\]") as error:
        PLUGIN.write(example(), tmp_path, STEP)
    assert error.value.code == "E_MISSING"


def test_the_plug_in_loads_without_onnx() -> None:
    code = (
        "import sys, snnpipe.export.targets.onnx as o; print(o.PLUGIN.name, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["onnx", "False"]
