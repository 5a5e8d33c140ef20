"""The fused kernel against the plain definition: spikes in every bit, gradients to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snnpipe import plugins
from snnpipe.train import eager, kernels, neuron
from snnpipe.train.modules import IF, LIF
from training_networks import RESETS

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not kernels.BUILT, reason="the kernel is not built here"),
]
CLOSE = {"rtol": 2e-6, "atol": 1e-6}
SIZES = [(1, 1), (1, 15), (3, 17), (4, 1024), (5, 1025), (2, 5003)]


def _neuron(reset, detach, compare="gt", surrogate="sigmoid", width=0.7, decay=0.3, threshold=0.9):
    surrogate = plugins.load("surrogates", surrogate)(width)
    return LIF(decay, threshold, reset, compare, detach, surrogate).spiking


def _current(steps, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, 1, size, generator=generator) * 2 + 0.3


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("surrogate", kernels.SURROGATES)
@pytest.mark.parametrize(("steps", "size"), SIZES)
def test_stream(reset, detach, surrogate, steps, size):
    spiking = _neuron(reset, detach, surrogate=surrogate)
    current = _current(steps, size)
    assert kernels.takes(current, spiking)
    spikes, rate, kappa = kernels.stream(current, spiking)
    plain_spikes, plain_rate, plain_kappa = _plain(current, spiking)
    assert torch.equal(spikes, plain_spikes)
    assert torch.equal(rate, plain_rate)
    torch.testing.assert_close(kappa, plain_kappa, **CLOSE)


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("surrogate", kernels.SURROGATES)
@pytest.mark.parametrize(("steps", "size"), SIZES)
def test_unrolled(reset, detach, surrogate, steps, size):
    spiking = _neuron(reset, detach, surrogate=surrogate)
    found = []
    for path in (kernels, eager):
        current = _current(steps, size).requires_grad_()
        spikes = path.unrolled(current, spiking)
        weight = _current(steps, size, seed=1)
        found.append((spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), current)))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], **CLOSE)


def _plain(current, spiking):
    """Spikes, rate and eligibility of the plain path."""
    spikes, (rate,), (slopes,) = eager.stream(current, spiking)
    return spikes, rate, slopes.rate_of_offset


def _rated(current, spiking):
    """The same of whatever path serves."""
    mean = current.mean(0, keepdim=True).requires_grad_()
    spikes, rate = neuron.rated(current, mean, spiking)
    (kappa,) = torch.autograd.grad(rate.sum(), mean)
    return spikes, rate[0], kappa[0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.floats(0, 1, width=32, exclude_max=True),
    st.floats(2**-4, 8, width=32),
    st.sampled_from(RESETS),
    st.sampled_from(["gt", "ge"]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_spikes_of_random_neurons(decay, threshold, case, compare, on_a_grid, seed):
    """Multiples of 1/8 around the threshold make u == threshold a common event."""
    spiking = _neuron(*case, compare=compare, decay=decay, threshold=threshold)
    if on_a_grid:
        spiking = _neuron(*case, compare=compare, decay=0.5, threshold=0.75)
    rng = np.random.default_rng(seed)
    values = rng.integers(-16, 17, (6, 3, 50)) / 8 if on_a_grid else rng.normal(0.5, 2, (6, 3, 50))
    current = torch.from_numpy(values.astype(np.float32))
    expected = _plain(current, spiking)[0]
    assert torch.equal(kernels.stream(current, spiking)[0], expected)
    assert torch.equal(kernels.unrolled(current, spiking), expected)


def test_the_comparison_matters_where_it_should():
    current = torch.ones(1, 1, 40)
    fired = [
        kernels.stream(current, LIF(0.5, 1.0, compare=c).spiking)[0].sum() for c in ("gt", "ge")
    ]
    assert fired == [0, 40]


def test_the_surrogate_is_good_to_rounding_far_from_the_threshold():
    current = torch.linspace(-30, 30, 20_001)[None, None]
    for width in (0.25, 1.0, 3.0):
        spiking = LIF(surrogate=plugins.load("surrogates", "sigmoid")(width)).spiking
        kappa = kernels.stream(current, spiking)[2].double().flatten()
        exact = spiking.surrogate((current.flatten() - 1.0).double())
        error = (kappa - exact).abs() / exact
        argument = 4 / width * (current.flatten() - 1.0).abs()
        assert error[argument < 8].max() < 1e-6
        assert error[argument < 70].max() < 5e-6  # the argument's own rounding, times 70


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed", "shown"])
def test_memory_layouts(layout):
    base = torch.randn(4, 2, 6, 5, 8, generator=torch.Generator().manual_seed(3)) + 0.5
    current = {
        "channels_last": base.flatten(0, 1)
        .contiguous(memory_format=torch.channels_last)
        .view(4, 2, 6, 5, 8),
        "sliced": base[..., ::2],
        "transposed": base.transpose(2, 4),
        "shown": base[0].expand(4, -1, -1, -1, -1),
    }[layout]
    spiking = _neuron("zero", False)
    spikes, rate, kappa = kernels.stream(current, spiking)
    plain = _plain(current, spiking)
    assert torch.equal(spikes, plain[0])
    torch.testing.assert_close(kappa, plain[2], **CLOSE)
    if layout == "channels_last":
        assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert rate.is_contiguous(memory_format=torch.channels_last)
    found = []
    for path in (kernels, eager):
        leaf = current.detach().clone().requires_grad_()
        used = leaf[:1].expand_as(leaf) if layout == "shown" else leaf
        # The gradient comes in another layout than the membranes lie in.
        out = path.unrolled(used, spiking).transpose(-1, -2).contiguous() ** 2
        found.append(torch.autograd.grad(out.sum(), leaf)[0])
    torch.testing.assert_close(*found, **CLOSE)


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "_WORTH_A_THREAD", 100)
    current, spiking = _current(4, 70_001), _neuron("zero", False)
    single = kernels.stream(current, spiking)
    torch.set_num_threads(3)
    for one, more in zip(single, kernels.stream(current, spiking), strict=True):
        assert torch.equal(one, more)


@pytest.mark.parametrize("isa", ["v3", "v4"])
@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("surrogate", kernels.SURROGATES)
def test_instruction_sets_change_nothing(monkeypatch, isa, reset, detach, surrogate):
    spiking = _neuron(reset, detach, surrogate=surrogate)

    def everything(name):
        monkeypatch.setenv("SNNPIPE_ISA", name)
        current = _current(4, 1037).requires_grad_()
        spikes = kernels.unrolled(current, spiking)
        gradient = torch.autograd.grad((spikes * _current(4, 1037, 1)).sum(), current)
        return spikes.detach(), *gradient, *kernels.stream(current.detach(), spiking)

    expected = everything("base")
    try:
        found = everything(isa)
    except ValueError:
        pytest.skip(f"this machine has no {isa}")
    for left, right in zip(found, expected, strict=True):
        assert torch.equal(left, right)


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv("SNNPIPE_ISA", "mmx")
    with pytest.raises(ValueError, match="SNNPIPE_ISA must be base, v3 or v4"):
        kernels.stream(_current(1, 3), LIF().spiking)


def test_without_the_extension_the_plain_path_serves(monkeypatch):
    monkeypatch.setattr(kernels, "BUILT", False)
    current, spiking = _current(3, 33), LIF().spiking
    assert not kernels.takes(current, spiking)
    for found, plain in zip(_rated(current, spiking), _plain(current, spiking), strict=True):
        assert torch.equal(found, plain)


def test_what_the_kernel_does_not_know_takes_the_plain_path():
    spiking = IF(0.8, surrogate=plugins.load("surrogates", "arctan")(1.0)).spiking
    current = _current(3, 33)
    assert not kernels.takes(current, spiking)
    assert not kernels.takes(current.double(), IF(0.8).spiking)
    for found, plain in zip(_rated(current, spiking), _plain(current, spiking), strict=True):
        assert torch.equal(found, plain)


def test_the_kernel_refuses_arrays_that_do_not_fit():
    with_ = kernels._neuron.Settings(
        decay=0.5, threshold=1.0, at_threshold=False, subtract=False, detach=True,
        surrogate="sigmoid", width=1.0, threads=1,
    )  # fmt: skip
    good, row = np.zeros((4, 10), np.float32), np.zeros((1, 10), np.float32)
    for current, spikes, rate in (
        (good, np.zeros((4, 9), np.float32), row),
        (good, np.zeros((3, 10), np.float32), row),
        (good, good.copy(), np.zeros((1, 9), np.float32)),
        (good[:, ::2], good[:, ::2].copy(), row[:, :5]),
        (good, np.broadcast_to(row, (4, 10)), row),
    ):
        with pytest.raises(ValueError, match=r"must be|not writeable"):
            kernels._neuron.stream(current, spikes, rate, row, with_)
    with pytest.raises(TypeError):
        kernels._neuron.stream(good.astype(np.float64), good, row, row, with_)
    with pytest.raises(ValueError, match="surrogate must be"):
        kernels._neuron.Settings(
            decay=0.5, threshold=1.0, at_threshold=False, subtract=False, detach=True,
            surrogate="arctan", width=1.0, threads=1,
        )  # fmt: skip
