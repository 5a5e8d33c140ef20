"""The fused kernel against the plain definition: spikes in every bit, gradients to rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snnpipe import plugins
from snnpipe.train import eager, kernels, neuron
from snnpipe.train.modules import IF, LIF, CubaLIF
from training_networks import RESETS

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not kernels.BUILT, reason="the kernel is not built here"),
]
CLOSE = {"rtol": 2e-6, "atol": 1e-6}
SIZES = [(1, 1), (1, 15), (3, 17), (4, 1024), (5, 1025), (2, 5003)]


FORMS = ["lif", "if", "cuba", "learned", "learned cuba", "channels"]
"""Neurons with a synaptic current, decays that are learned, a threshold per channel, or without."""


def _module(
    reset="zero", detach=True, compare="gt", surrogate="sigmoid", width=0.7, decay=0.3,
    threshold=0.9, form="lif",
):  # fmt: skip
    surrogate = plugins.load("surrogates", surrogate)(width)
    threshold = [threshold, threshold * 1.5, threshold / 2] if "channels" in form else threshold
    rest = (threshold, reset, compare, detach, surrogate)
    if form == "if":
        return IF(*rest)
    if "cuba" in form:
        return CubaLIF(0.6, decay, *rest, learn_decay="learned" in form)
    return LIF(decay, *rest, learn_decay="learned" in form)


def _neuron(*args, **kwargs):
    return _module(*args, **kwargs).spiking


def _current(steps, size, seed=0):
    """(steps, 1, 3, size)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, 1, 3, size, generator=generator) * 2 + 0.3


def _compare(found, expected):
    """Spikes and rates in every bit, slopes to rounding."""
    for left, right in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(left, right)
    for left, right in zip(found[2], expected[2], strict=True):
        assert left.keys() == right.keys()
        for source, parts in left.items():
            for part, plain in zip(parts, right[source], strict=False):  # fewer where none asks
                torch.testing.assert_close(part, plain.expand_as(part), **CLOSE)


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("surrogate", kernels.SURROGATES)
@pytest.mark.parametrize("form", FORMS)
def test_stream(reset, detach, surrogate, form):
    spiking = _neuron(reset, detach, surrogate=surrogate, form=form)
    for steps, size in SIZES if form == "lif" else SIZES[2:4]:
        current = _current(steps, size)
        assert kernels.takes(current, spiking)
        _compare(kernels.stream(current, spiking), eager.stream(current, spiking))


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("windows", [2, 3, 6])
@pytest.mark.parametrize("form", FORMS)
def test_windows(reset, detach, windows, form):
    spiking, current = _neuron(reset, detach, form=form), _current(6, 37)
    found = kernels.stream(current, spiking, windows)
    _compare(found, eager.stream(current, spiking, windows))
    begun = [source in found[2][-1] for source in ("v", "i")]
    assert begun == [True, "cuba" in form]
    assert "v" not in found[2][0]


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("surrogate", kernels.SURROGATES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [False, True])
def test_unrolled(reset, detach, surrogate, form, cut):
    for steps, size in SIZES if form == "lif" else SIZES[2:4]:
        found = []
        for path in (kernels, eager):
            module = _module(reset, detach, surrogate=surrogate, form=form)
            current = _current(steps, size).requires_grad_()
            spikes = path.unrolled(current, module.spiking, cut)
            loss = (spikes * _current(steps, size, seed=1)).sum()
            to = [current, *module.parameters()]
            found.append((spikes.detach(), *torch.autograd.grad(loss, to)))
        assert torch.equal(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1], found[1][1], **CLOSE)
        for left, right in zip(found[0][2:], found[1][2:], strict=True):  # sums over all neurons
            torch.testing.assert_close(left, right, rtol=2e-5, atol=2e-5)


def test_a_cut_leaves_only_the_gradient_of_the_step_itself():
    current = _current(4, 19).requires_grad_()
    for form in ("lif", "cuba"):
        last = [0, 0]
        for cut in (False, True):
            spikes = kernels.unrolled(current, _neuron(form=form), cut)
            (found,) = torch.autograd.grad(spikes[-1].sum(), current)
            last[cut] = [bool(step.any()) for step in found]
        assert last == [[True] * 4, [False, False, False, True]]


def _plain(current, spiking):
    """Spikes, rate and eligibility of the plain path."""
    spikes, (rate,), (slopes,) = eager.stream(current, spiking)
    return spikes, rate, slopes["current"][0]


def _kernel(current, spiking):
    """The same of the kernel."""
    spikes, (rate,), (slopes,) = kernels.stream(current, spiking)
    return spikes, rate, slopes["current"][0]


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
    st.sampled_from(FORMS),
    st.integers(0, 2**31),
)
def test_spikes_of_random_neurons(decay, threshold, case, compare, on_a_grid, form, seed):
    """Multiples of 1/8 around the threshold make u == threshold a common event."""
    spiking = _neuron(*case, compare=compare, decay=decay, threshold=threshold, form=form)
    if on_a_grid:
        spiking = _neuron(*case, compare=compare, decay=0.5, threshold=0.75, form=form)
    rng = np.random.default_rng(seed)
    shape = (6, 4, 3, 11)
    values = rng.integers(-16, 17, shape) / 8 if on_a_grid else rng.normal(0.5, 2, shape)
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
        kappa = _kernel(current, spiking)[2].double().flatten()
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
    spikes, rate, kappa = _kernel(current, spiking)
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


@pytest.mark.parametrize("form", ["channels", "learned cuba"])
@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_memory_layouts_of_other_forms(layout, form):
    base = torch.randn(4, 2, 3, 5, 8, generator=torch.Generator().manual_seed(3)) + 0.5
    current = {
        "channels_last": base.flatten(0, 1)
        .contiguous(memory_format=torch.channels_last)
        .view(4, 2, 3, 5, 8),
        "transposed": base.transpose(3, 4),
    }[layout]
    spiking = _neuron("subtract", False, form=form)
    for windows in (1, 2):
        found = kernels.stream(current, spiking, windows)
        _compare(found, eager.stream(current, spiking, windows))
    found = []
    for path in (kernels, eager):
        leaf = current.detach().clone().requires_grad_()
        out = path.unrolled(leaf, spiking).transpose(-1, -2).contiguous() ** 2
        found.append(torch.autograd.grad(out.sum(), leaf)[0])
    torch.testing.assert_close(*found, **CLOSE)


def _everything(module, steps, size, windows):
    """Spikes, gradients and slopes of a population, in one row."""
    current = _current(steps, size).requires_grad_()
    spikes = kernels.unrolled(current, module.spiking)
    loss = (spikes * _current(steps, size, 1)).sum()
    gradients = torch.autograd.grad(loss, [current, *module.parameters()])
    _, rates, slopes = kernels.stream(current.detach(), module.spiking, windows)
    parts = (part for window in slopes for parts in window.values() for part in parts)
    return spikes.detach(), *gradients, rates, *parts


@pytest.mark.parametrize("form", FORMS)
def test_threads_change_nothing(monkeypatch, form):
    monkeypatch.setattr(kernels, "_WORTH_A_THREAD", 100)
    module = _module("zero", False, form=form)
    single = _everything(module, 4, 7_001, 2)
    torch.set_num_threads(3)
    for one, more in zip(single, _everything(module, 4, 7_001, 2), strict=True):
        assert torch.equal(one, more)


@pytest.mark.parametrize("isa", ["v3", "v4"])
@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("surrogate", kernels.SURROGATES)
def test_instruction_sets_change_nothing(monkeypatch, isa, reset, detach, surrogate):
    for form in FORMS:
        module = _module(reset, detach, surrogate=surrogate, form=form)
        monkeypatch.setenv("SNNPIPE_ISA", "base")
        expected = _everything(module, 4, 349, 1 if form == "lif" else 2)
        monkeypatch.setenv("SNNPIPE_ISA", isa)
        try:
            found = _everything(module, 4, 349, 1 if form == "lif" else 2)
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


@dataclass(frozen=True)
class _Cosine:
    """A surrogate of somebody else's: a half wave of a cosine."""

    width: float = 1.0
    name: ClassVar[str] = "cosine"

    def __call__(self, x):
        slope = (math.pi / 2 / self.width) * torch.cos(math.pi * x / self.width)
        return slope * (x.abs() < self.width / 2)


def test_what_the_kernel_does_not_know_takes_the_plain_path():
    spiking = IF(0.8, surrogate=_Cosine()).spiking
    current = _current(3, 33)
    assert not kernels.takes(current, spiking)
    assert not kernels.takes(current.double(), IF(0.8).spiking)
    for found, plain in zip(_rated(current, spiking), _plain(current, spiking), strict=True):
        assert torch.equal(found, plain)
    assert tuple(kernels._neuron.SURROGATES) == kernels.SURROGATES


def _settings(**changes):
    given = {
        "decay": 0.5, "synaptic_decay": None, "threshold": 1.0, "thresholds": None,
        "at_threshold": False, "subtract": False, "detach": True, "cut": False,
        "surrogate": "sigmoid", "width": 1.0, "threads": 1,
    }  # fmt: skip
    return kernels._neuron.Settings(**given | changes)


def test_the_kernel_refuses_arrays_that_do_not_fit():
    with_ = _settings()
    good, row = np.zeros((4, 10), np.float32), np.zeros((1, 10), np.float32)
    stream = kernels._neuron.stream

    def asked(row, windows=1):
        return [[[row, None, None], *[[None] * 3] * 4]] * windows

    stream(good, good.copy(), row.copy(), asked(row), with_)
    for current, spikes, rates in (
        (good, np.zeros((4, 9), np.float32), row),
        (good, np.zeros((3, 10), np.float32), row),
        (good, good.copy(), np.zeros((1, 9), np.float32)),
        (good[:, ::2], good[:, ::2].copy(), row[:, :5]),
        (good, np.broadcast_to(row, (4, 10)), row),
    ):
        with pytest.raises(ValueError, match=r"must be|not writeable"):
            stream(current, spikes, rates, asked(row), with_)
    for slopes in (asked(row[:, :9]), asked(row, 3), [], [[[row]]], [[[row]] * 5]):
        with pytest.raises(ValueError, match="slopes must be"):
            stream(good, good.copy(), row, slopes, with_)
    with pytest.raises(TypeError):
        stream(good.astype(np.float64), good, row, asked(row), with_)
    with pytest.raises(ValueError, match="thresholds must be"):
        stream(good, good.copy(), row, asked(row), _settings(thresholds=row[:, :9]))
    with pytest.raises(ValueError, match="surrogate must be"):
        _settings(surrogate="cosine")
