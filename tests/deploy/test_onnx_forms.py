"""All steps in one call: scan and unrolled files give what the step graph gives, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from random_networks import dyadic, frames, networks
from snnpipe.deploy.runtimes import _onnx_file
from snnpipe.deploy.runtimes.onnx import PLUGIN
from snnpipe.errors import RequestError
from snnpipe.export.targets.onnx import PLUGIN as TARGET
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv, Delay, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LI, LIF, Spiking
from snnpipe.network.simulate import simulate
from snnpipe.network.step_graph import FORMS, file_of, value_of
from snnpipe.network.trace import Record, Trace, unpack
from trace_equality import differences

AT_ONCE = FORMS[1:]


def array(value: object) -> np.ndarray:
    return np.array(value, np.float32)


def example() -> Network:
    """Images, a layer that feeds itself with a delay, a flatten and a leaky read-out."""
    rng = np.random.default_rng(3)
    conv = Conv("conv", dyadic(rng, (3, 2, 3, 3)), dyadic(rng, (3,)), (1, 2), (1, 0))
    lif = LIF(array(0.9), array([[[0.3]], [[0.7]], [[1.1]]]), array(-0.1))
    dense = Dense("fc", dyadic(rng, (4, 27)), dyadic(rng, (4,)))
    back = Synapse("lif", (Delay("echo", 1),))
    layers = (
        Layer("lif", lif, (3, 3, 3), (Synapse("in", (conv,)), back)),
        Layer("out", LI(array(0.5)), (4,), (Synapse("lif", (Flatten("flat"), dense)),)),
    )
    return Network("in", (2, 3, 7), layers, "out", Contract(4, input_levels=4, input_scale=0.25))


def plainly(path: Path, network: Network, x: np.ndarray, trace: Trace) -> None:
    """Hold the outputs of the file itself, run by onnxruntime alone, against a Trace."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"x": x}), strict=True))
    output = network.layer(network.output)
    assert np.array_equal(found[value_of(output)].reshape(trace.outputs.shape), trace.outputs)
    for layer in network.layers:
        if isinstance(layer.neuron, Spiking):
            spikes = unpack(trace.spikes[layer.name], layer.shape)
            assert np.array_equal(found[value_of(layer)], spikes), layer.name


def forms_agree(folder: Path, network: Network, samples: int, still: bool) -> None:
    """Every form against the reference in all that a Trace holds, and run by others too."""
    steps, record = network.contract.steps, Record(None, samples)
    x = frames(network, samples, samples, None if still else steps)
    expected = simulate(network, x, steps, record)
    shown = np.repeat(x[None], steps, axis=0) if still else x
    for form in FORMS:
        TARGET.write(network, folder, {"form": form})
        path = folder / file_of(form)
        found = PLUGIN.open(network, folder).run(x, steps, record)
        assert differences(expected, found) == [], form
        if form != "step":
            plainly(path, network, shown, expected)
        path.unlink()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(networks(), st.sampled_from([1, 64]), st.booleans())
def test_every_form_gives_the_reference_spikes(
    tmp_path_factory: pytest.TempPathFactory, network: Network, samples: int, still: bool
) -> None:
    forms_agree(tmp_path_factory.mktemp("onnx"), network, samples, still)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True)
@given(networks(), st.booleans())
def test_every_form_gives_the_reference_spikes_of_many_networks(
    tmp_path_factory: pytest.TempPathFactory, network: Network, still: bool
) -> None:
    folder = tmp_path_factory.mktemp("onnx")
    forms_agree(folder, network, 1, still)
    forms_agree(folder, network, 64, still)


def test_a_scan_runs_for_any_number_of_steps_and_an_unrolled_graph_for_its_own(
    tmp_path: Path,
) -> None:
    network = example()
    x = frames(network, 2, 1, 9)
    TARGET.write(network, tmp_path, {"form": "scan"})
    assert differences(simulate(network, x, 9), PLUGIN.open(network, tmp_path).run(x, 9)) == []
    (tmp_path / "network.scan.onnx").unlink()
    TARGET.write(network, tmp_path, {"form": "unrolled"})
    session = PLUGIN.open(network, tmp_path)
    with pytest.raises(RequestError, match="unrolled for 4 steps, asked for 9") as error:
        session.run(x, 9)
    assert error.value.code == "E_INPUT"
    assert session.run(x[:4], 4).outputs.shape == (4, 2, 4)


def test_the_step_graph_comes_first_and_a_file_must_be_of_the_form_it_is_called(
    tmp_path: Path,
) -> None:
    for form in FORMS:
        TARGET.write(example(), tmp_path, {"form": form})
    (tmp_path / "network.onnx").write_bytes((tmp_path / "network.scan.onnx").read_bytes())
    refused(tmp_path, "form is 'scan', expected 'step'")
    (tmp_path / "network.onnx").unlink()
    (tmp_path / "network.scan.onnx").write_bytes((tmp_path / "network.unrolled.onnx").read_bytes())
    refused(tmp_path, "form is 'unrolled', expected 'scan'")


@pytest.fixture(params=AT_ONCE)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    TARGET.write(example(), tmp_path, {"form": request.param})
    return tmp_path / file_of(request.param)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    TARGET.write(example(), tmp_path, {"form": "scan"})
    return tmp_path / "network.scan.onnx"


def edit(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def refused(folder: Path, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        PLUGIN.open(example(), folder).run(frames(example(), 3, 0), 4)
    assert error.value.code == "E_ONNX"
    assert "\n" not in error.value.message


def body(model: onnx.ModelProto) -> onnx.GraphProto:
    (node,) = (node for node in model.graph.node if node.op_type == "Scan")
    return next(a.g for a in node.attribute if a.name == "body")


def step_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of the first step, wherever they stand."""
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    return list(body(model).node if scans else model.graph.node)


def named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in step_nodes(model) if n.name in (f"{name}@t", f"{name}@0"))


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _set(model: onnx.ModelProto, name: str, values: object) -> None:
    tensor = weight(model, name)
    tensor.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), name))


def test_a_changed_weight_shows_in_the_currents_of_its_layer(path: Path) -> None:
    network, record = example(), Record(None, 8)
    x = frames(network, 8, 6)

    def nudge(model: onnx.ModelProto) -> None:
        tensor = weight(model, "fc.weight")
        values = numpy_helper.to_array(tensor).copy()
        values[1, :] += np.float32(2**-12)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(path, nudge)
    found = PLUGIN.open(network, path.parent).run(x, 4, record)
    changed = differences(simulate(network, x, 4, record), found)
    assert "currents.out" in changed
    assert "currents.lif" not in changed


def test_a_weight_outside_the_file_is_not_read(path: Path) -> None:
    onnx.save_model(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    refused(path.parent, "points to a file outside")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(named(m, "flat"), "op_type", "Loop"), "'flat@.' is a 'Loop'"),
        (lambda m: setattr(named(m, "flat"), "domain", "com.example"), "'com.example'"),
        (lambda m: setattr(m.functions[0], "domain", "com.example"), "domain 'com.example'"),
        (lambda m: setattr(m.functions[0].node[0], "op_type", "MatMul"), "'MatMul'"),
        (
            lambda m: named(m, "flat").attribute.append(
                helper.make_attribute("body", helper.make_graph([], "inner", [], []))
            ),
            "attribute 'body' holds no number",
        ),
        (lambda m: m.graph.output.pop(), "its ends are out:membrane; this network's are"),
        (lambda m: _set(m, "v.lif.sizes", [3, 3, 4]), "not a valid graph of this network"),
        (lambda m: _set(m, "v.lif.sizes", [2**40, 3, 3]), "not a valid graph of this network"),
        (lambda m: _set(m, "flat.shape", [0, 9]), "not a valid graph|onnxruntime refuses"),
        (lambda m: _set(m, "flat.shape", [-1, 9]), "not a valid graph|onnxruntime refuses"),
    ],
)
def test_a_file_the_target_never_writes_is_refused(
    path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    edit(path, change)
    refused(path.parent, message)


def _two_loops(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[-1])


def _no_loop(model: onnx.ModelProto) -> None:
    model.graph.node.pop()


def _own_weights(model: onnx.ModelProto) -> None:
    body(model).initializer.append(numpy_helper.from_array(array([1.0]), "more"))


def _other_ends(model: onnx.ModelProto) -> None:
    body(model).input[0].name = "elsewhere"


def _loop_in_loop(model: onnx.ModelProto) -> None:
    body(model).node.append(model.graph.node[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_two_loops, "not one Scan"),
        (_no_loop, "not one Scan"),
        (_own_weights, "without weights of its own"),
        (_other_ends, "its ends are elsewhere"),
        (_loop_in_loop, "'steps' is a 'Scan'"),
    ],
)
def test_a_scan_the_target_never_writes_is_refused(
    scan: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    edit(scan, change)
    refused(scan.parent, message)


def test_a_hidden_value_that_takes_too_much_memory_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_onnx_file, "MAX_VALUES", 53)
    refused(path.parent, r"the value 'line__\d+' holds 54 numbers, at most 53")


def test_a_value_in_a_scan_that_says_nothing_of_its_size_is_refused(scan: Path) -> None:
    def hide(model: onnx.ModelProto) -> None:
        del body(model).value_info[:]

    edit(scan, hide)
    refused(scan.parent, "nothing says how many numbers the value 'flat:out@t' holds")


def test_flipped_bits_are_refused_or_run(path: Path) -> None:
    rng = np.random.default_rng(1)
    whole, x = path.read_bytes(), frames(example(), 2, 0)
    codes = []
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            assert PLUGIN.open(example(), path.parent).run(x, 4).outputs.shape == (4, 2, 4)
        except RequestError as error:
            codes.append(error.code)
    assert set(codes) == {"E_ONNX"}
    assert len(codes) > 60
