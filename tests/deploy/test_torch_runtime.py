"""The torch runtime: every field of its Trace is the reference's, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import dyadic, frames, networks
from snnpipe.deploy import recording
from snnpipe.deploy.runtimes import _torch_session
from snnpipe.deploy.runtimes._torch_session import BLOCK
from snnpipe.deploy.runtimes.torch import PLUGIN, TABLE
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Scale,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Sum, Threshold
from snnpipe.network.simulate import simulate
from snnpipe.network.support import Recurrent
from snnpipe.network.trace import Record, unpack
from trace_equality import differences

RNG = np.random.default_rng(11)


def array(value: object) -> np.ndarray:
    return np.array(value, np.float32)


def example(decay: float = 0.9, threshold: float = 0.3) -> Network:
    """Sums on a grid, decay and threshold off it; padding wider than half a window."""
    rng = np.random.default_rng(3)
    conv = Conv("conv", dyadic(rng, (4, 1, 3, 3)), dyadic(rng, (4,)), (1, 2), (1, 0), (1, 1), 2)
    lif = LIF(array(decay), array(threshold), array(-0.1))
    dense = Dense("fc", dyadic(rng, (10, 36)), dyadic(rng, (10,)))
    layers = (
        Layer("lif", lif, (4, 6, 3), (Synapse("in", (conv,)),)),
        Layer(
            "pooled", Sum(), (4, 4, 3), (Synapse("lif", (SumPool("p", (3, 1), (2, 1), (2, 0)),)),)
        ),
        Layer(
            "mean", IF(array(0.7)), (4, 3, 3), (Synapse("pooled", (AvgPool("q", (2, 1), (1, 1)),)),)
        ),
        Layer("out", Sum(), (10,), (Synapse("mean", (Flatten("flat"), dense)),)),
    )
    return Network("in", (2, 6, 7), layers, "out", Contract(9, input_levels=4, input_scale=0.25))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    networks(),
    st.sampled_from([1, 4, 17, 34]),
    st.booleans(),
    st.sampled_from([None, Record(2, 3), Record(0, 0)]),
)
def test_every_field_is_the_references(
    network: Network, steps: int, per_step: bool, record: Record | None
) -> None:
    """Also over more steps than a block holds."""
    assert BLOCK < 17
    x = frames(network, 5, 1, steps if per_step else None)
    found = PLUGIN.open(network, None).run(x, steps, record)
    assert differences(simulate(network, x, steps, record), found) == []


def looped(delay: int, source: str = "b", reset_time: str = "same_step") -> Network:
    """Two layers in a loop behind a Sum, a delay in the loop and one that is longer than a run."""
    rng = np.random.default_rng(8)
    cuba = CubaLIF(array(0.3), array(0.9), array(0.4), gain=array(0.7), leak=array(0.05))
    conv = Conv1d("c", dyadic(rng, (4, 1, 3)), dyadic(rng, (4,)), 1, 1, 1, 2)
    back = (Scale("s", array(-0.5)), Delay("d", delay))
    never = (Delay("never", 2**20),)
    layers = (
        Layer("a.in", Sum(), (4, 5), (Synapse("in", (conv,)), Synapse(source, back))),
        Layer("a", cuba, (4, 5), (Synapse("a.in"),)),
        Layer("b", LIF(array(0.9), array(0.3)), (4, 5), (Synapse("a"), Synapse("a.in", never))),
        Layer("li", LI(array(0.8)), (4, 5), (Synapse("b"),)),
    )
    contract = Contract(
        40, reset="subtract", reset_time=reset_time, input_levels=4, input_scale=0.25
    )
    return Network("in", (2, 5), layers, "li", contract)


@pytest.mark.parametrize("reset_time", ["same_step", "next_after_decay"])
@pytest.mark.parametrize("block", [1, 3, 16, 40])
def test_loops_delays_and_resets_live_on_from_block_to_block(
    monkeypatch: pytest.MonkeyPatch, block: int, reset_time: str
) -> None:
    network = looped(5, reset_time=reset_time)
    x, record = frames(network, 7, 4), Record(None, 7)
    monkeypatch.setattr(_torch_session, "BLOCK", block)
    found = PLUGIN.open(network, None).run(x, 40, record)
    assert differences(simulate(network, x, 40, record), found) == []


@pytest.mark.parametrize("other", [looped(4), looped(5, "a"), looped(5, "b", "next_after_decay")])
def test_another_loop_is_seen(other: Network) -> None:
    x = frames(other, 7, 4)
    expected = simulate(looped(5), x, 40)
    assert {"outputs", "spikes.a", "spikes.b"} <= set(
        differences(expected, PLUGIN.open(other, None).run(x, 40))
    )


def test_integrators_between_layers_run_as_the_reference_runs_them() -> None:
    """Identities add nothing, so that values off every grid stay the same."""
    layers = (
        Layer("cuba", CubaLI(array(0.3), array(0.9), array(0.8)), (6,), (Synapse("in"),)),
        Layer("li", LI(array(0.7), array(1.1), array(-0.1)), (6,), (Synapse("cuba"),)),
        Layer("fires", Threshold(array(0.2)), (6,), (Synapse("li"),)),
    )
    network = Network("in", (6,), layers, "fires", Contract(20, input_levels=4))
    x, record = frames(network, 7, 4, 20), Record(None, 7)
    expected = simulate(network, x, 20, record)
    assert 0 < unpack(expected.spikes["fires"], (6,)).mean() < 1
    assert sorted(expected.spikes) == ["fires"]
    assert differences(expected, PLUGIN.open(network, None).run(x, 20, record)) == []


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_off_grid_decays_round_as_the_reference_rounds(compare: str, reset: str) -> None:
    network = example()
    network = network.with_contract(replace(network.contract, compare=compare, reset=reset))
    x = frames(network, 20, 2)
    record = Record(None, 20)
    expected = simulate(network, x, 9, record)
    assert unpack(expected.spikes["mean"], (4, 3, 3)).any()
    assert differences(expected, PLUGIN.open(network, None).run(x, 9, record)) == []


def test_another_decay_is_seen() -> None:
    network = example()
    x = frames(network, 20, 2)
    expected = simulate(network, x, 9, Record(None, 20))
    found = PLUGIN.open(example(decay=0.6), None).run(x, 9, Record(None, 20))
    assert {"spikes.lif", "fired.lif", "outputs"} <= set(differences(expected, found))
    assert "currents.lif" not in differences(expected, found)


@pytest.mark.parametrize("per_step", [False, True])
def test_parts_of_the_batch_and_blocks_of_steps_change_nothing(
    monkeypatch: pytest.MonkeyPatch, per_step: bool
) -> None:
    network = example()
    x = frames(network, 11, 4, 9 if per_step else None)
    record = Record(6, 5)
    whole = PLUGIN.open(network, None).run(x, 9, record)
    monkeypatch.setattr(recording, "MOST_SAMPLES", 4)
    monkeypatch.setattr(_torch_session, "BLOCK", 2)
    parts = PLUGIN.open(network, None).run(x, 9, record)
    assert parts.spikes["lif"].shape[:2] == (9, 6)
    assert parts.currents["mean"].shape[:2] == (9, 5)
    assert differences(whole, parts) == []
    one = PLUGIN.open(network, None).run(x[..., :1, :, :, :], 9, record)
    assert np.array_equal(one.outputs, whole.outputs[:, :1])


def test_memory_bounds_the_samples_at_once() -> None:
    values = 2 * 6 * 7 + 72 + 48 + 36 + 10
    assert recording.samples_at_once(example(), 2) == recording.MOST_SAMPLES
    most = recording.MEMORY // (16 * values)
    assert recording.samples_at_once(example(), most) == 1
    assert recording.samples_at_once(example(), most // 7) == 7


def test_backends_are_as_before_and_restricted_meanwhile() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with _torch_session.exact():
            inside = (torch.get_float32_matmul_precision(), torch.backends.cudnn.enabled)
            assert not torch._C._get_nnpack_enabled()
            assert not torch.is_grad_enabled()
        assert inside == ("highest", False)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.enabled
        assert torch._C._get_nnpack_enabled()
        assert torch.is_grad_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_frame_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(RequestError, match=r"\[3, 2, 6, 6\]") as error:
        PLUGIN.open(example(), None).run(np.zeros((3, 2, 6, 6), np.float32), 9)
    assert error.value.code == "E_INPUT"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = example(), frames(example(), 2, 0)
    monkeypatch.setenv("SNNPIPE_TORCH_DEVICE", "abacus")
    with pytest.raises(RequestError, match="'abacus'") as unknown:
        PLUGIN.open(network, None)
    assert unknown.value.code == "E_DEVICE"
    absent = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(CouldNotRunError, match=f"'{absent}'") as error:
        PLUGIN.open(network, None, device=absent)
    assert error.value.code == "E_DEVICE"
    given_device = PLUGIN.open(network, None, device="cpu").run(x, 9)
    assert differences(simulate(network, x, 9), given_device) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("network", [example(), looped(5)])
def test_cuda_is_the_reference_bit_for_bit(network: Network) -> None:
    x, record = frames(network, 20, 2), Record(None, 20)
    found = PLUGIN.open(network, None, device="cuda").run(x, 20, record)
    assert differences(simulate(network, x, 20, record), found) == []


def test_integers_are_refused() -> None:
    network = example()
    integer = network.with_contract(network.contract.with_arithmetic(Integer(8, {})))
    with pytest.raises(RequestError, match="8-bit") as error:
        PLUGIN.open(integer, None)
    assert error.value.code == "E_UNSUPPORTED"


def test_a_reason_in_the_table_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Conv1d, Scale, Delay, CubaLIF, Sum, Recurrent):
        table = {**TABLE, kind: "no such part"}
        monkeypatch.setattr("snnpipe.deploy.runtimes.torch.TABLE", table)
        with pytest.raises(RequestError, match=r"'torch' cannot run .*layer .*no such part"):
            PLUGIN.open(looped(2), None)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "snnpipe.deploy.runtimes._torch_session")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CouldNotRunError, match=r"snnpipe\[train\]") as error:
        PLUGIN.open(example(), None)
    assert error.value.code == "E_MISSING"


def test_the_plug_in_loads_without_torch() -> None:
    code = (
        "import sys, snnpipe.deploy.runtimes.torch as t\n"
        "print(t.PLUGIN.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch", "False"]
