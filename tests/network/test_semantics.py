"""Semantics: each preset's formulas against numbers written out, refusals, changed points."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nir_edits import refused
from nir_graphs import Node, chain, graph, linear, port, write
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract
from snnpipe.network.neurons import parameters
from snnpipe.network.nir_file import read_network
from snnpipe.network.semantics import PRESETS, Semantics, named, readable

READABLE = ["snnpipe", "nir-strict", "snntorch", "snntorch-import", "spikingjelly", "norse"]


def _node(kind: str, **values: float) -> Node:
    return {"type": kind, **{name: np.full(4, value) for name, value in values.items()}}


def _lif(**changed: float) -> Node:
    """tau of 4 ms, r of 3: with dt 1 ms a decay of 0.75 and a gain of 0.75."""
    values = {"tau": 4e-3, "r": 3.0, "v_leak": 0.0, "v_threshold": 2.0, "v_reset": 0.0}
    return _node("LIF", **{**values, **changed})


def _if(r: float = 1.0) -> Node:
    return _node("IF", r=r, v_threshold=2.0, v_reset=0.0)


def _cuba(**changed: float) -> Node:
    values = {"tau_syn": 2e-3, "tau_mem": 4e-3, "r": 3.0, "v_leak": 0.0, "w_in": 5.0,
              "v_threshold": 2.0, "v_reset": 0.0}  # fmt: skip
    return _node("CubaLIF", **{**values, **changed})


def _around(node: Node) -> Node:
    """A graph of four such neurons behind a linear map."""
    nodes = {"input": port("Input", 4), "w": linear(4, 4), "lif": node}
    return graph({**nodes, "output": port("Output", 4)}, chain("input w lif output"))


def _read(path: Path, node: Node, semantics: Semantics | str) -> dict[str, float]:
    """The parameters with which a node of four neurons comes out, each one number for all."""
    network = read_network(write(path, _around(node)), semantics)
    assert network.contract.steps == 1
    return {name: float(value) for name, value in parameters(network.layers[0].neuron).items()}


def _rounded(**values: float) -> dict[str, float]:
    return {name: float(np.float32(value)) for name, value in values.items()}


# --- the presets, point by point ---


FOREIGN = Contract(steps=1, input_coding="events")
POINTS = ("dt", "compare", "reset", "reset_time", "spikes_per_step", "v_min")


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("snnpipe", (1e-4, "gt", "value", "same_step", "one", "none")),
        ("nir-strict", (1e-4, "gt", "value", "same_step", "one", "none")),
        ("snntorch", (1e-4, "gt", "subtract", "next_after_decay", "one", "none")),
        ("snntorch-import", (1e-4, "gt", "value", "same_step", "one", "none")),
        ("spikingjelly", (1e-4, "ge", "value", "same_step", "one", "none")),
        ("norse", (1e-3, "gt", "value", "same_step", "one", "none")),
        ("sinabs", (1.0, "ge", "subtract", "same_step", "many", "minus_threshold")),
        ("lava", (1e-4, "gt", "value", "same_step", "one", "none")),
    ],
)
def test_the_points_of_every_preset(name: str, points: tuple[Any, ...]) -> None:
    contract = PRESETS[name].contract
    assert tuple(getattr(contract, point) for point in POINTS) == points
    changed = dict(zip(POINTS, points, strict=True))
    assert contract == replace(FOREIGN, **changed)  # all else is the default


def test_every_preset_is_among_them() -> None:
    assert list(PRESETS) == [*READABLE, "sinabs", "lava"]
    assert readable() == "snnpipe, nir-strict, snntorch, snntorch-import, spikingjelly or norse"


# --- decay, gain, leak ---


LIF_ROWS: list[tuple[str, float, Node, dict[str, float]]] = [
    # decay 1 - dt/tau; gain r*dt/tau; leak v_leak*dt/tau
    ("nir-strict", 1e-3, _lif(v_leak=0.5, v_reset=-1.0),
     {"decay": 0.75, "gain": 0.75, "leak": 0.125, "threshold": 2.0, "v_reset": -1.0}),
    ("nir-strict", 1e-4, _lif(v_leak=0.5),
     {"decay": 0.975, "gain": 0.075, "leak": 0.0125, "threshold": 2.0, "v_reset": 0.0}),
    ("snnpipe", 1e-3, _lif(v_leak=-0.5, v_reset=0.25),
     {"decay": 0.75, "gain": 0.75, "leak": -0.125, "threshold": 2.0, "v_reset": 0.25}),
    # v_reset of the file is passed over
    ("snntorch", 1e-3, _lif(v_reset=-1.0),
     {"decay": 0.75, "gain": 0.75, "leak": 0.0, "threshold": 2.0, "v_reset": 0.0}),
    ("snntorch-import", 1e-3, _lif(v_reset=-1.0),
     {"decay": 0.75, "gain": 0.75, "leak": 0.0, "threshold": 2.0, "v_reset": 0.0}),
    # r = 1 and r = tau/dt
    ("spikingjelly", 1e-3, _lif(r=1.0),
     {"decay": 0.75, "gain": 0.25, "leak": 0.0, "threshold": 2.0, "v_reset": 0.0}),
    ("spikingjelly", 1e-3, _lif(r=4.0),
     {"decay": 0.75, "gain": 1.0, "leak": 0.0, "threshold": 2.0, "v_reset": 0.0}),
    # r is taken as 1, v_reset as 0
    ("norse", 1e-3, _lif(r=100.0, v_reset=-1.0),
     {"decay": 0.75, "gain": 0.25, "leak": 0.0, "threshold": 2.0, "v_reset": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dt", "node", "expected"), LIF_ROWS)
def test_lif(name: str, dt: float, node: Node, expected: dict[str, float], tmp_path: Path) -> None:
    assert _read(tmp_path / "x.nir", node, named(name, dt=dt)) == _rounded(**expected)


@pytest.mark.parametrize("name", ["snnpipe", "nir-strict", "norse"])
def test_li_is_lif_without_its_end(name: str, tmp_path: Path) -> None:
    node = _node("LI", tau=4e-3, r=3.0, v_leak=0.0)
    found = _read(tmp_path / "x.nir", node, named(name, dt=1e-3))
    gain = 0.25 if name == "norse" else 0.75
    assert found == {"decay": 0.75, "gain": gain, "leak": 0.0}


@pytest.mark.parametrize(
    ("name", "dt", "r", "gain"),
    [
        ("nir-strict", 1e-4, 1e4, 1.0),
        ("nir-strict", 1e-4, 1.0, 1e-4),
        ("snnpipe", 1e-3, 500.0, 0.5),
        ("spikingjelly", 1e-3, 1e3, 1.0),
        ("norse", 1e-3, 7.0, 1.0),
    ],
)
def test_if(name: str, dt: float, r: float, gain: float, tmp_path: Path) -> None:
    found = _read(tmp_path / "x.nir", _if(r), named(name, dt=dt))
    assert found == _rounded(gain=gain, threshold=2.0, v_reset=0.0)


CUBA_ROWS: list[tuple[str, Node, dict[str, float]]] = [
    # synaptic: decay 1 - dt/tau_syn, gain w_in*dt/tau_syn; membrane: as LIF with tau_mem
    ("nir-strict", _cuba(v_leak=0.5, v_reset=-1.0),
     {"synaptic_decay": 0.5, "synaptic_gain": 2.5, "decay": 0.75, "gain": 0.75, "leak": 0.125,
      "threshold": 2.0, "v_reset": -1.0}),
    ("snntorch", _cuba(r=4.0, v_reset=-1.0),
     {"synaptic_decay": 0.5, "synaptic_gain": 2.5, "decay": 0.75, "gain": 1.0, "leak": 0.0,
      "threshold": 2.0, "v_reset": 0.0}),
    ("spikingjelly", _cuba(r=4.0, w_in=2.0),
     {"synaptic_decay": 0.5, "synaptic_gain": 1.0, "decay": 0.75, "gain": 1.0, "leak": 0.0,
      "threshold": 2.0, "v_reset": 0.0}),
    # unlike in its LIF, norse reads r here
    ("norse", _cuba(v_reset=-1.0),
     {"synaptic_decay": 0.5, "synaptic_gain": 2.5, "decay": 0.75, "gain": 0.75, "leak": 0.0,
      "threshold": 2.0, "v_reset": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "node", "expected"), CUBA_ROWS)
def test_cuba_lif(name: str, node: Node, expected: dict[str, float], tmp_path: Path) -> None:
    assert _read(tmp_path / "x.nir", node, named(name, dt=1e-3)) == _rounded(**expected)


def test_cuba_li(tmp_path: Path) -> None:
    node = _node("CubaLI", tau_syn=2e-3, tau_mem=4e-3, r=3.0, v_leak=0.5, w_in=5.0)
    found = _read(tmp_path / "x.nir", node, named("nir-strict", dt=1e-3))
    assert found == {
        "synaptic_decay": 0.5, "synaptic_gain": 2.5, "decay": 0.75, "gain": 0.75, "leak": 0.125
    }  # fmt: skip


@pytest.mark.parametrize(
    ("integrator", "decay"),
    [("euler", 0.75), ("exp", 0.7788007831), ("exp_steps", 2.6691902e-109)],
)
def test_integrators(integrator: Any, decay: float) -> None:
    semantics = Semantics(Contract(1, dt=1e-3), integrator)
    assert semantics.decay(np.array(4e-3)) == pytest.approx(decay, rel=1e-6)


def test_gain_is_one_or_physical_under_every_integrator() -> None:
    tau = np.array(4e-3)
    exp = Semantics(Contract(1, dt=1e-3), "exp")
    unit = replace(exp, input_gain="unit")
    assert float(exp.gain(np.array(2.0), exp.decay(tau))) == pytest.approx(0.4423984, rel=1e-6)
    assert float(unit.gain(np.array(2.0), unit.decay(tau))) == 1.0
    assert float(unit.gain_without_leak(np.array(2.0))) == 1.0


# --- values that float32 files hold a little beside what was meant ---


def test_a_gain_beside_one_is_one_in_foreign_files_only(tmp_path: Path) -> None:
    tau = float(np.float32(4e-3))
    node = _lif(tau=tau, r=float(np.float32(4e-3) / np.float32(1e-3)))
    assert _read(tmp_path / "x.nir", node, named("nir-strict", dt=1e-3))["gain"] == 1.0
    own = Semantics(Contract(1, dt=1e-3))
    exact = own.gain(np.array(1 + 1e-6), np.array(0.0))
    assert exact == np.float32(1 + 1e-6) != 1
    assert named("nir-strict").gain(np.array(1 + 2e-6), np.array(0.0)) != 1


def test_a_leak_beside_one_is_left_alone() -> None:
    leak = named("nir-strict").leak(np.array(1 + 5e-7), np.array(0.0))
    assert leak == np.float32(1 + 5e-7) != 1


def test_values_that_leave_float32_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _around(_if(3e38)))
    with pytest.raises(RequestError) as caught:
        read_network(path, named("nir-strict", dt=10.0))
    assert caught.value.code == "E_VALUE"


# --- what a framework cannot read ---


REFUSALS: list[tuple[str, Node, str]] = [
    ("snntorch", _if(), "snnTorch has no IF"),
    ("snntorch-import", _if(), "snnTorch has no IF"),
    ("snntorch", _lif(v_leak=0.5), "snnTorch has no v_leak"),
    ("snntorch", _cuba(r=4.0, v_leak=0.5), "snnTorch has no v_leak"),
    ("snntorch", _cuba(r=1.0), "snnTorch takes r of tau_mem/dt only"),
    ("snntorch-import", _lif(v_leak=0.5), "snnTorch has no v_leak"),
    ("norse", _lif(v_leak=0.5), "norse starts its membranes at v_leak"),
    ("norse", _cuba(v_leak=0.5), "norse starts its membranes at v_leak"),
    ("spikingjelly", _lif(r=1.0, v_leak=0.5), "v_leak is not 0"),
    ("spikingjelly", _lif(r=1.0, v_reset=0.5), "v_reset is not 0"),
    ("spikingjelly", _lif(r=3.0), "r of 1 or tau/dt only"),
    ("spikingjelly", _if(1.0), "r of 1/dt only"),
    ("spikingjelly", _cuba(r=4.0, w_in=1.0), "w_in of tau_syn/dt only"),
    ("spikingjelly", _cuba(r=1.0, w_in=2.0), "r of tau_mem/dt"),
]


@pytest.mark.parametrize(("name", "node", "text"), REFUSALS)
def test_what_a_framework_cannot_read_names_the_node(
    name: str, node: Node, text: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.nir", _around(node))
    with pytest.raises(RequestError) as caught:
        read_network(path, named(name, dt=1e-3))
    assert caught.value.code == "E_SEMANTICS"
    assert caught.value.message.startswith(f"{path}: node 'lif' ({node['type']}): ")
    assert text in caught.value.message


@pytest.mark.parametrize("name", READABLE)
def test_a_tau_that_no_step_divides_is_no_overflow(name: str, tmp_path: Path) -> None:
    node = {key: np.float32(3e38) * np.ones(4, np.float32) if key == "tau" else value
            for key, value in _lif().items()}  # fmt: skip
    path = write(tmp_path / "x.nir", _around(node))
    with pytest.raises(RequestError, match="the decay leaves") as caught:
        read_network(path, name)
    assert caught.value.code == "E_VALUE"


@pytest.mark.parametrize(
    ("name", "reason"), [("sinabs", "several spikes"), ("lava", "one step late")]
)
def test_a_preset_that_nothing_runs_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _around(_lif(r=1.0)))
    with pytest.raises(RequestError, match=f"'{name}' cannot be run here: .*{reason}") as caught:
        read_network(path, name)
    assert caught.value.code == "E_SEMANTICS"
    assert reason in PRESETS[name].summary()["cannot read"]


@pytest.mark.parametrize("name", READABLE)
def test_the_others_read(name: str, tmp_path: Path) -> None:
    network = read_network(write(tmp_path / "x.nir", _around(_lif(r=1.0))), named(name, dt=1e-4))
    assert network.contract == replace(PRESETS[name].contract, dt=1e-4)
    assert PRESETS[name].summary()["cannot read"] == ""


@pytest.mark.parametrize(
    ("tau", "code"), [(1e-4, ""), (0.99e-4, "E_VALUE"), (1e-38, "E_VALUE"), (3e4, "E_VALUE")]
)
def test_a_decay_outside_its_range_names_tau(tau: float, code: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _around(_lif(tau=tau)))
    if code:
        assert f"node 'lif' (LIF): tau holds {tau:.6g} s" in refused(path, code)
    else:
        assert float(read_network(path, "nir-strict").layers[0].neuron.decay) == 0.0


# --- single points changed ---


def test_points_can_be_changed(tmp_path: Path) -> None:
    changed = named("nir-strict", dt=1e-3, compare="ge", reset="subtract")
    path = write(tmp_path / "x.nir", _around(_lif()))
    network = read_network(path, changed)
    assert network.contract == replace(FOREIGN, dt=1e-3, compare="ge", reset="subtract")
    assert float(network.layers[0].neuron.decay) == 0.75


def test_inputs_are_events_or_one_frame() -> None:
    assert named("norse").contract.input_coding == "events"
    assert named("norse", input_coding="direct").contract.input_coding == "direct"


def test_a_reset_to_a_value_is_of_the_same_step() -> None:
    assert named("snntorch").contract.reset_time == "next_after_decay"
    assert named("snntorch", compare="ge").contract.reset_time == "next_after_decay"
    contract = named("snntorch", reset="value").contract
    assert (contract.reset, contract.reset_time) == ("value", "same_step")
    assert contract.refused() == ""
    late = named("snntorch", reset="subtract").contract
    assert (late.reset, late.reset_time) == ("subtract", "next_after_decay")


@pytest.mark.parametrize("dt", [0.0, -1e-4, float("nan"), float("inf"), 1e-300, 1e12])
def test_a_step_that_is_none_is_refused(dt: float) -> None:
    with pytest.raises(RequestError, match="dt is") as caught:
        named("nir-strict", dt=dt)
    assert caught.value.code == "E_CONTRACT"


def test_an_unknown_name_is_answered_with_its_neighbour() -> None:
    with pytest.raises(RequestError, match="did you mean 'spikingjelly'") as caught:
        named("spiking-jelly")
    assert caught.value.code == "E_SEMANTICS"


def test_a_summary_says_every_point_of_every_preset() -> None:
    tables = {name: preset.summary() for name, preset in PRESETS.items()}
    assert len({tuple(table) for table in tables.values()}) == 1
    assert tables["snntorch"]["reset"] == "by subtraction, one step late"
    assert tables["norse"]["reset"] == "to 0"
    assert tables["nir-strict"]["reset"] == "to v_reset"
    assert tables["sinabs"]["decay"] == "exp(-1/tau)"
    assert tables["spikingjelly"]["fires at"] == "v >= threshold"
    assert {field.name for field in fields(Semantics)} >= {"integrator", "input_gain", "v_reset"}
