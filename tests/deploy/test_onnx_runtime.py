"""The onnx runtime: torch, the reference and onnxruntime agree; other files are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from random_networks import dyadic, frames, networks
from snnpipe.deploy import recording
from snnpipe.deploy.runtimes import _onnx_file
from snnpipe.deploy.runtimes import torch as torch_runtime
from snnpipe.deploy.runtimes.onnx import PLUGIN, TABLE
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.export.targets.onnx import PLUGIN as TARGET
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LIF, Sum
from snnpipe.network.simulate import simulate
from snnpipe.network.support import PARTS
from snnpipe.network.trace import Record, unpack
from trace_equality import differences

STEP = {"form": "step"}


def array(value: object) -> np.ndarray:
    return np.array(value, np.float32)


def example(compare: str = "gt", reset: str = "value") -> Network:
    """Sums on a grid, decay and thresholds off it, one of them per channel."""
    rng = np.random.default_rng(3)
    conv1 = Conv("conv1", dyadic(rng, (4, 1, 3, 3)), dyadic(rng, (4,)), (1, 2), (1, 0), (1, 1), 2)
    conv2 = Conv("conv2", dyadic(rng, (4, 4, 3, 1)), None, (1, 1), (2, 0), (2, 1))
    lif1 = LIF(array(0.9), array([[[0.3]], [[0.7]], [[1.1]], [[0.2]]]), array(-0.1))
    lif2 = LIF(array(0.35), array(0.45))
    pools = (SumPool("p", (3, 1), (2, 1), (1, 0)), AvgPool("q", (1, 3), (1, 1), (0, 1)))
    dense = Dense("fc", dyadic(rng, (10, 36)), dyadic(rng, (10,)))
    layers = (
        Layer("lif1", lif1, (4, 6, 3), (Synapse("in", (conv1,)),)),
        Layer("lif2", lif2, (4, 6, 3), (Synapse("lif1", (conv2,)), Synapse("lif1"))),
        Layer("fires", IF(array(0.6)), (4, 3, 3), (Synapse("lif2", pools),)),
        Layer("out", Sum(), (10,), (Synapse("fires", (Flatten("flat"), dense)),)),
    )
    contract = Contract(6, compare=compare, reset=reset, input_levels=4, input_scale=0.25)
    return Network("in", (2, 6, 7), layers, "out", contract)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TARGET.write(example(), tmp_path, STEP)
    return tmp_path


@settings(max_examples=15, deadline=None, derandomize=True)
@given(networks(), st.booleans(), st.sampled_from([None, Record(2, 3), Record(0, 0)]))
def test_onnx_torch_and_the_reference_agree_in_every_field(
    tmp_path_factory: pytest.TempPathFactory,
    network: Network,
    per_step: bool,
    record: Record | None,
) -> None:
    folder = tmp_path_factory.mktemp("onnx")
    TARGET.write(network, folder, STEP)
    steps = network.contract.steps
    x = frames(network, 5, 1, steps if per_step else None)
    found = PLUGIN.open(network, folder).run(x, steps, record)
    assert differences(simulate(network, x, steps, record), found) == []
    other = torch_runtime.PLUGIN.open(network, None).run(x, steps, record)
    assert differences(other, found) == []


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_off_grid_decays_round_as_the_reference_rounds(
    tmp_path: Path, compare: str, reset: str
) -> None:
    network, record = example(compare, reset), Record(None, 30)
    TARGET.write(network, tmp_path, STEP)
    x = frames(network, 30, 2)
    expected = simulate(network, x, 6, record)
    assert unpack(expected.spikes["fires"], (4, 3, 3)).any()
    assert differences(expected, PLUGIN.open(network, tmp_path).run(x, 6, record)) == []


@pytest.mark.parametrize("per_step", [False, True])
def test_parts_of_the_batch_change_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, per_step: bool
) -> None:
    network, record = example(), Record(6, 5)
    x = frames(network, 11, 4, 6 if per_step else None)
    whole = PLUGIN.open(network, folder).run(x, 6, record)
    monkeypatch.setattr(recording, "MOST_SAMPLES", 4)
    session = PLUGIN.open(network, folder)
    assert differences(whole, session.run(x, 6, record)) == []
    one = session.run(x[..., :1, :, :, :], 6, record)
    assert np.array_equal(one.outputs, whole.outputs[:, :1])
    assert np.array_equal(one.currents["lif2"], whole.currents["lif2"][:, :1])


def edit(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    path = folder / "network.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(found for found in model.graph.node if found.name == name)


def test_a_changed_weight_shows_in_the_currents_of_its_layer(folder: Path) -> None:
    network, record = example(), Record(None, 8)
    x = frames(network, 8, 6)
    expected = simulate(network, x, 6, record)

    def nudge(model: onnx.ModelProto) -> None:
        tensor = weight(model, "conv2.weight")
        values = numpy_helper.to_array(tensor).copy()
        values[1, 2, 0, 0] += np.float32(2**-12)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(folder, nudge)
    found = differences(expected, PLUGIN.open(network, folder).run(x, 6, record))
    assert "currents.lif2" in found
    assert "currents.lif1" not in found


def test_a_changed_comparison_shows_in_the_spikes(tmp_path: Path) -> None:
    """Inputs of 1 against a threshold of 1: fires at >=, never fires at >."""
    layer = Layer("part", IF(array(1)), (3,), (Synapse("in"),))
    network = Network("in", (3,), (layer,), "part", Contract(1))
    TARGET.write(network, tmp_path, STEP)
    x = np.ones((2, 3), np.float32)
    assert PLUGIN.open(network, tmp_path).run(x, 1).fired["part"].sum() == 0

    def compare(model: onnx.ModelProto) -> None:
        next(
            n for n in model.functions[0].node if n.op_type == "Greater"
        ).op_type = "GreaterOrEqual"

    edit(tmp_path, compare)
    assert PLUGIN.open(network, tmp_path).run(x, 1).fired["part"].sum() == 6


def test_a_weight_outside_the_file_is_not_read(folder: Path) -> None:
    path = folder / "network.onnx"
    onnx.save_model(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (folder / "weights.bin").stat().st_size > 100
    refused(folder, "points to a file outside")


def refused(folder: Path, message: str, network: Network | None = None) -> None:
    with pytest.raises(RequestError, match=message) as error:
        PLUGIN.open(network or example(), folder)
    assert error.value.code == "E_ONNX"
    assert "\n" not in error.value.message


@pytest.mark.parametrize("length", [0, 1, 100, 3000])
def test_a_file_cut_short_is_refused(folder: Path, length: int) -> None:
    path = folder / "network.onnx"
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, "damaged|snnpipe.form")


def test_missing_foreign_and_random_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "export with target 'onnx'")
    path = tmp_path / "network.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path, "damaged")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2, 6, 7]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, ir_version=10), path)
    refused(tmp_path, "snnpipe.form is None")
    with pytest.raises(RequestError, match="export with target 'onnx' first"):
        PLUGIN.open(example(), None)


def test_a_file_of_another_network_or_contract_is_refused(folder: Path) -> None:
    refused(folder, "contract is not the network's", example("ge"))
    network = example()
    layers = (replace(network.layers[0], neuron=IF(array(1))), *network.layers[1:])
    refused(folder, "written for another network", replace(network, layers=layers))


def test_a_file_beyond_the_limits_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_file, "MAX_BYTES", 1000)
    refused(folder, "ends at 1000")


def _loop(model: onnx.ModelProto) -> None:
    node(model, "flat").op_type = "Loop"


def _stranger(model: onnx.ModelProto) -> None:
    node(model, "flat").domain = "com.example"


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _foreign_function(model: onnx.ModelProto) -> None:
    model.functions[0].domain = "com.example"


def _function_body(model: onnx.ModelProto) -> None:
    model.functions[0].node[0].op_type = "MatMul"


def _graph_attribute(model: onnx.ModelProto) -> None:
    node(model, "flat").attribute.append(
        helper.make_attribute("body", helper.make_graph([], "inner", [], []))
    )


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _half(model: onnx.ModelProto) -> None:
    tensor = weight(model, "fc.weight")
    values = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _short(model: onnx.ModelProto) -> None:
    tensor = weight(model, "fc.weight")
    tensor.raw_data = tensor.raw_data[:-4]


def _not_a_number(model: onnx.ModelProto) -> None:
    tensor = weight(model, "conv1.bias")
    tensor.CopyFrom(numpy_helper.from_array(array([0, np.nan, 1, 0]), tensor.name))


def _input(model: onnx.ModelProto) -> None:
    model.graph.input.append(_onnx_file._info("v.more", ("N", 3)))


def _stride(model: onnx.ModelProto) -> None:
    strides = next(a for a in node(model, "conv1").attribute if a.name == "strides")
    strides.ints[0] = 2


def _no_current(model: onnx.ModelProto) -> None:
    node(model, "conv1").output[0] = "elsewhere"


def _memory(model: onnx.ModelProto) -> None:
    pads = next(a for a in node(model, "p").attribute if a.name == "pads")
    strides = next(a for a in node(model, "p").attribute if a.name == "strides")
    pads.ints[0] = pads.ints[2] = 2**26
    strides.ints[0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_loop, "'flat' is a 'Loop'"),
        (_stranger, "'com.example'"),
        (_opset, "domain 'com.example'"),
        (_foreign_function, "domain 'com.example'"),
        (_function_body, "'MatMul'"),
        (_graph_attribute, "attribute 'body'"),
        (_sparse, "sparse"),
        (_half, "'fc.weight' is neither float32 nor int64"),
        (_short, "'fc.weight' does not fill its shape"),
        (_not_a_number, "'conv1.bias' holds numbers that are not finite"),
        (_input, "its ends are x, v.lif1, v.lif2, v.fires, v.more"),
        (_stride, "not a valid graph of this network"),
        (_no_current, "not a valid graph of this network"),
        (_memory, "not a valid graph of this network|numbers, at most"),
    ],
)
def test_a_file_the_target_never_writes_is_refused(
    folder: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    edit(folder, change)
    refused(folder, message)


def test_flipped_bits_are_refused_or_run(folder: Path) -> None:
    path, rng = folder / "network.onnx", np.random.default_rng(1)
    whole, x = path.read_bytes(), frames(example(), 2, 0)
    codes = []
    for _ in range(120):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            assert PLUGIN.open(example(), folder).run(x, 2).outputs.shape == (2, 2, 10)
        except RequestError as error:
            codes.append(error.code)
    assert set(codes) == {"E_ONNX"}
    assert len(codes) > 60


def test_a_hidden_value_that_takes_too_much_memory_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_onnx_file, "MAX_VALUES", 71)
    refused(folder, r"the value 'conv2:out' holds 72 numbers, at most 71")


def test_integers_are_refused(folder: Path) -> None:
    network = example()
    integer = network.with_contract(network.contract.with_arithmetic(Integer(8, {})))
    with pytest.raises(RequestError, match="8-bit") as error:
        PLUGIN.open(integer, folder)
    assert error.value.code == "E_UNSUPPORTED"


def test_the_table_knows_every_part_and_handles_it() -> None:
    assert dict(TABLE) == dict.fromkeys(PARTS)


@pytest.mark.parametrize("kind", [Conv, SumPool, Flatten, LIF, IF, Sum])
def test_a_reason_in_the_table_is_a_refusal_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    table = {**TABLE, kind: "no such part"}
    monkeypatch.setattr("snnpipe.deploy.runtimes.onnx.TABLE", table)
    with pytest.raises(RequestError, match=rf"\({kind.__name__}, layer .*no such part"):
        PLUGIN.open(example(), folder)


def test_without_onnxruntime_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "snnpipe.deploy.runtimes._onnx_session", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CouldNotRunError, match=r"snnpipe\[onnx\]") as error:
        PLUGIN.open(example(), folder)
    assert error.value.code == "E_MISSING"


def test_the_plug_in_loads_neither_onnx_nor_onnxruntime() -> None:
    code = (
        "import sys, snnpipe.deploy.runtimes.onnx as o\n"
        "print(o.PLUGIN.name, {'onnx', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["onnx", "set()"]
