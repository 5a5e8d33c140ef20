"""The forms of the ONNX target: names, axes, functions, and how a form is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from random_networks import dyadic, frames, networks
from snnpipe.errors import RequestError
from snnpipe.export.targets.onnx import PLUGIN
from snnpipe.export.write import options_of, write_targets
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Conv1d, Delay, Dense, Flatten, Layer, Network, Scale, Synapse
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Spiking, Sum, Threshold
from snnpipe.network.simulate import simulate
from snnpipe.network.step_graph import FORMS, MOST_UNROLLED, Form, file_of
from snnpipe.network.trace import unpack

RNG = np.random.default_rng(8)


def array(value: Any) -> np.ndarray:
    return np.array(value, np.float32)


def example(steps: int = 3, late: bool = False) -> Network:
    """Every neuron, a loop over two layers, a layer that feeds itself, delays of 0 to 3 steps."""
    rng = np.random.default_rng(8)
    conv = Conv1d("conv", dyadic(rng, (4, 1, 3)), dyadic(rng, (4,)), 2, 1, 1, 2)
    first = LIF(array([[0.75], [0.5], [0.25], [0.5]]), array(0.75), gain=array(1.3))
    cuba = CubaLIF(array(0.25), array(0.6), array(0.4), synaptic_gain=array(0.8))
    flat, dense = Flatten("flat"), Dense("dense", dyadic(rng, (5, 12)))
    back = Dense("back", dyadic(rng, (5, 4)), dyadic(rng, (5,)))
    fall = Dense("fall", dyadic(rng, (4, 5)))
    layers = (
        Layer(
            "lif",
            first,
            (4, 3),
            (
                Synapse("in", (conv, Scale("scale", dyadic(rng, (4, 1))))),
                Synapse("lif", (Delay("echo", 2),)),
            ),
        ),
        Layer(
            "cuba",
            cuba,
            (5,),
            (Synapse("lif", (flat, dense, Delay("three", 3))), Synapse("gate", (back,))),
        ),
        Layer("both", Sum(), (5,), (Synapse("cuba"),)),
        Layer("gate", Threshold(array(0.3)), (4,), (Synapse("both", (fall, Delay("none", 0))),)),
        Layer("if", IF(array(0.75), gain=array(0.4)), (4,), (Synapse("gate", (Delay("d", 1),)),)),
        Layer("cubali", CubaLI(array(0.5), array(0.25), leak=array(0.1)), (4,), (Synapse("if"),)),
        Layer("out", LI(array(0.9)), (4,), (Synapse("cubali"),)),
    )
    reset = {"reset": "subtract", "reset_time": "next_after_decay"} if late else {}
    return Network("in", (2, 6), layers, "out", Contract(steps, input_levels=8, **reset))


def written(network: Network, folder: Path, form: Form) -> onnx.ModelProto:
    facts = PLUGIN.write(network, folder, {"form": form})
    assert (facts["file"], facts["form"]) == (file_of(form), form)
    model = onnx.load(folder / facts["file"])
    onnx.checker.check_model(model, full_check=True)
    return model


def ends(values: Any) -> dict[str, list[Any]]:
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }


STATES = {
    "v.lif": ["N", 4, 3],
    "s.lif": ["N", 4, 3],
    "d.echo": ["N", 2, 4, 3],
    "v.cuba": ["N", 5],
    "i.cuba": ["N", 5],
    "d.three": ["N", 3, 5],
    "s.gate": ["N", 4],
    "v.if": ["N", 4],
    "d.d": ["N", 1, 4],
    "v.cubali": ["N", 4],
    "i.cubali": ["N", 4],
    "v.out": ["N", 4],
}
COLLECTED = {
    "out:membrane": [4],
    "lif:spikes": [4, 3],
    "cuba:spikes": [5],
    "gate:spikes": [4],
    "if:spikes": [4],
}
FUNCTIONS = {
    "LIF_gt_value_driven",
    "CubaLIF_gt_value_driven",
    "Threshold_gt",
    "IF_gt_value_driven",
    "CubaLI_driven",
    "LI",
    "Delay",
}


def test_the_step_has_every_state_as_input_and_output(tmp_path: Path) -> None:
    model = written(example(), tmp_path, "step")
    assert ends(model.graph.input) == {"x": ["N", 2, 6], **STATES}
    after = {f"{name}.next": axes for name, axes in STATES.items()}
    assert ends(model.graph.output) == {"out:membrane": ["N", 4], **after}
    assert {function.name for function in model.functions} == FUNCTIONS
    calls = {node.name: node.op_type for node in model.graph.node if node.domain == "snnpipe"}
    assert calls == {
        **{"lif": "LIF_gt_value_driven", "cuba": "CubaLIF_gt_value_driven"},
        **{"gate": "Threshold_gt", "if": "IF_gt_value_driven"},
        **{"cubali": "CubaLI_driven", "out": "LI", "echo": "Delay", "three": "Delay", "d": "Delay"},
    }


def test_scan_is_one_loop_over_the_step_with_t_and_n_free(tmp_path: Path) -> None:
    model = written(example(), tmp_path, "scan")
    assert ends(model.graph.input) == {"x": ["T", "N", 2, 6]}
    assert ends(model.graph.output) == {k: ["T", "N", *axes] for k, axes in COLLECTED.items()}
    assert {function.name for function in model.functions} == FUNCTIONS
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    assert sum(node.domain == "snnpipe" for node in body.node) == 9
    assert not body.initializer
    assert ends(body.input) == {**{f"{k}@t": v for k, v in STATES.items()}, "x@t": ["N", 2, 6]}


def test_unrolled_has_no_loop_and_the_contracts_steps(tmp_path: Path) -> None:
    model = written(example(), tmp_path, "unrolled")
    assert ends(model.graph.input) == {"x": [3, "N", 2, 6]}
    assert ends(model.graph.output) == {k: [3, "N", *axes] for k, axes in COLLECTED.items()}
    assert {function.name for function in model.functions} == FUNCTIONS
    assert sum(node.domain == "snnpipe" for node in model.graph.node) == 3 * 9
    assert not any(a.HasField("g") for node in model.graph.node for a in node.attribute)
    cuba = [node.name for node in model.graph.node if node.op_type == "CubaLIF_gt_value_driven"]
    assert cuba == ["cuba@0", "cuba@1", "cuba@2"]


@pytest.mark.parametrize("form", FORMS)
def test_metadata_says_the_form_and_a_spiking_output_comes_once(tmp_path: Path, form: Form) -> None:
    layer = Layer("only", LIF(array(0.5), array(1)), (3,), (Synapse("in"),))
    network = Network("in", (3,), (layer,), "only", Contract(2))
    model = written(network, tmp_path, form)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["snnpipe.form"] == form
    assert metadata["snnpipe.T"] == "2"
    assert model.graph.output[0].name == "only:spikes"
    assert len(model.graph.output) == (2 if form == "step" else 1)


@pytest.mark.parametrize(
    ("neuron", "contract", "name", "equations"),
    [
        (
            LIF(array(0.5), array(1), leak=array(0.1)),
            Contract(1, compare="ge", reset="subtract", reset_time="next_after_decay"),
            "LIF_ge_subtract_late_driven",
            "drive = gain*current + leak; last = v >= threshold; u = decay*v + drive; "
            "v_next = u - threshold*last; spikes = v_next >= threshold",
        ),
        (
            CubaLIF(array(0.5), array(0.25), array(1)),
            Contract(1),
            "CubaLIF_gt_value",
            "i_next = synaptic_decay*i + synaptic_gain*current; u = decay*v + i_next; "
            "spikes = u > threshold; v_next = u - u*spikes + v_reset*spikes",
        ),
        (
            IF(array(1), gain=array(0.5)),
            Contract(1, reset="subtract"),
            "IF_gt_subtract_driven",
            "drive = gain*current; u = v + drive; spikes = u > threshold; "
            "v_next = u - threshold*spikes",
        ),
        (LI(array(0.5)), Contract(1), "LI", "membrane = decay*v + current; v_next = membrane"),
        (
            Threshold(array(1)),
            Contract(1, compare="ge"),
            "Threshold_ge",
            "spikes = current >= threshold",
        ),
    ],
)
def test_a_variant_is_named_and_says_its_equations(
    tmp_path: Path, neuron: Any, contract: Contract, name: str, equations: str
) -> None:
    layer = Layer("only", neuron, (3,), (Synapse("in"),))
    model = written(Network("in", (3,), (layer,), "only", contract), tmp_path, "step")
    assert [(f.name, f.doc_string) for f in model.functions] == [(name, equations)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("form", ["scan", "unrolled"])
def test_onnx_reference_evaluator_gives_the_reference_spikes(
    tmp_path: Path, form: Form, late: bool
) -> None:
    network = example(7, late)
    model = written(network, tmp_path, form)
    x = frames(network, 2, 8, steps=7)
    expected = simulate(network, x, 7)
    found = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(found[0], expected.outputs)
    spiking = [layer for layer in network.layers if isinstance(layer.neuron, Spiking)]
    for layer, spikes in zip(spiking, found[1:], strict=True):
        assert np.array_equal(spikes, unpack(expected.spikes[layer.name], layer.shape))
        assert spikes.any()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(networks(graded=True))
def test_random_networks_give_checked_files_and_equal_bytes_in_every_form(
    tmp_path_factory: pytest.TempPathFactory, network: Network
) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for form in FORMS:
        model = written(network, one, form)
        PLUGIN.write(replace(network), two, {"form": form})
        assert (one / file_of(form)).read_bytes() == (two / file_of(form)).read_bytes()
        populations = {type(layer.neuron) for layer in network.layers} - {Sum}
        assert {function.name.partition("_")[0] for function in model.functions} >= {
            kind.__name__ for kind in populations
        }


def test_more_steps_than_are_unrolled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot unroll 17 steps, at most 16; form 'scan'") as e:
        PLUGIN.write(example(MOST_UNROLLED + 1), tmp_path, {"form": "unrolled"})
    assert e.value.code == "E_RANGE"
    assert not list(tmp_path.iterdir())
    written(example(MOST_UNROLLED), tmp_path, "unrolled")


def test_a_state_and_a_weight_of_one_name_are_refused(tmp_path: Path) -> None:
    dense = Dense("v", dyadic(RNG, (3, 3)))
    layer = Layer("weight", IF(array(1)), (3,), (Synapse("in", (dense,)),))
    network = Network("in", (3,), (layer,), "weight", Contract(2))
    for form in FORMS:
        with pytest.raises(RequestError, match=r"'v\.weight'") as error:
            PLUGIN.write(network, tmp_path, {"form": form})
        assert error.value.code == "E_NAME"


def test_an_option_reaches_the_targets_that_have_it_and_the_manifest(tmp_path: Path) -> None:
    folders = write_targets(example(), ["nir", "onnx"], tmp_path, options={"form": "scan"})
    assert (folders["onnx"] / "network.scan.onnx").is_file()
    assert not (folders["onnx"] / "network.onnx").exists()
    manifest = json.loads((folders["onnx"] / "manifest.json").read_text())
    assert manifest["options"] == {"form": "scan"}
    assert "form" not in json.loads((folders["nir"] / "manifest.json").read_text())["options"]
    again = write_targets(example(), ["onnx"], tmp_path)["onnx"]
    assert json.loads((again / "manifest.json").read_text())["options"] == {"form": "step"}
    assert not (again / "network.scan.onnx").exists()


def test_unknown_options_and_values_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no target of nir, lava has an option 'form'") as error:
        options_of(["nir", "lava"], {"form": "scan"})
    assert error.value.code == "E_OPTION"
    with pytest.raises(
        RequestError, match="'form' is 'scam'; expected one of step, scan, unr"
    ) as e:
        write_targets(example(), ["nir", "onnx"], tmp_path, options={"form": "scam"})
    assert e.value.code == "E_OPTION"
    assert not list(tmp_path.iterdir())
