"""Every surrogate: unit area, peak 1 / width, and its use as the derivative of a spike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.train import eager, kernels
from snnpipe.train.modules import LIF
from snnpipe.train.rules.bptt import BPTT
from training_networks import mean_output

NAMES = sorted(plugins.summaries("surrogates"))
ENERGY = {
    "sigmoid": 2 / 3, "triangle": 2 / 3, "rectangle": 1, "arctan": 1 / 2, "fast_sigmoid": 1 / 3,
}  # fmt: skip
"""The integral of h^2 at width 1; at width w it is 1/w of that."""
BEYOND = {"arctan": 2 / math.pi**2, "fast_sigmoid": 1 / 2}
"""What the heavy tails hold outside of n widths, times n, for large n."""
PATHS = ["float64", "float32", "base", "v3", "v4"]
"""The plain path in two precisions, and the kernel in every instruction set."""


def test_the_five_are_there():
    assert NAMES == ["arctan", "fast_sigmoid", "rectangle", "sigmoid", "triangle"]
    assert sorted(kernels.SURROGATES) == NAMES


def derivative(path, surrogate, x, monkeypatch):
    """h(x) (N,) in float64, as the gradient of a first spike: bptt's, and the rate's, are one."""
    spiking = LIF(threshold=1.0, surrogate=surrogate).spiking
    if path in ("base", "v3", "v4"):
        monkeypatch.setenv("SNNPIPE_ISA", path)
        dtype, of = torch.float32, kernels
    else:
        dtype, of = getattr(torch, path), eager
    current = (x + 1.0).to(dtype)[None, None].requires_grad_()
    try:
        _, _, (slopes,) = of.stream(current.detach(), spiking)
    except ValueError:
        pytest.skip(f"this machine has no {path}")
    (slope,) = torch.autograd.grad(of.unrolled(current, spiking).sum(), current)
    assert torch.equal(slope[0], slopes["current"][0])
    return slope[0, 0].double()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.5, 1.0, 2.6])
@pytest.mark.parametrize("path", PATHS)
def test_area_peak_energy_and_symmetry(name, width, path, monkeypatch):
    if path not in ("float64", "float32") and not kernels.BUILT:
        pytest.skip("the kernel is not built here")
    surrogate = plugins.load("surrogates", name)(width)
    assert (surrogate.name, surrogate.width) == (name, width)
    # Finer near the threshold: x = width * sinh(s); 20 widths, beyond which float32 rounds u - 1.
    reach = math.asinh(20)
    s = np.linspace(-reach, reach, 50_001)
    x = torch.from_numpy(width * np.sinh(s))
    h = derivative(path, surrogate, x, monkeypatch)
    per_s = width * np.cosh(s)
    area = float(np.trapezoid(h.numpy() * per_s, s))
    assert area + BEYOND.get(name, 0) / 20 == pytest.approx(1, abs=2e-3)
    energy = float(np.trapezoid(h.numpy() ** 2 * per_s, s))
    assert energy == pytest.approx(ENERGY[name] / width, rel=1e-3)
    assert float(h.max()) == pytest.approx(1 / width, rel=1e-6)
    middle = derivative(path, surrogate, torch.zeros(1, dtype=torch.float64), monkeypatch)
    assert float(middle[0]) == pytest.approx(1 / width, rel=1e-6)
    steps = torch.arange(-64, 65, dtype=torch.float64) / 16  # exact in float32, the sum with 1 too
    even = derivative(path, surrogate, steps, monkeypatch)
    assert torch.equal(even, even.flip(0))
    assert bool((h >= 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_families_differ(name):
    h = plugins.load("surrogates", name)(1.0)
    x = torch.tensor([0.3, 0.45])
    others = [plugins.load("surrogates", other)(1.0)(x) for other in NAMES if other != name]
    assert all(not torch.allclose(h(x), other, rtol=1e-2) for other in others)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_derivative_of_the_first_spike(name, dtype):
    surrogate = plugins.load("surrogates", name)(0.8)
    current = torch.linspace(-3, 5, 41, dtype=dtype)[:, None].requires_grad_()
    threshold = 1.25
    output = mean_output(BPTT(), LIF(0.5, threshold, surrogate=surrogate), current, 1)
    assert torch.equal(output, (current > threshold).to(dtype))
    (slope,) = torch.autograd.grad(output.sum(), current)
    torch.testing.assert_close(slope, surrogate(current.detach() - threshold))
    assert slope.std() > 0.1


@pytest.mark.parametrize("width", [0.0, -1.0, float("inf"), float("nan")])
def test_a_width_must_be_a_positive_number(width):
    with pytest.raises(RequestError, match="width"):
        LIF(surrogate=plugins.load("surrogates", "sigmoid")(width))
