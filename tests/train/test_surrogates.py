"""Every surrogate: unit area, peak 1 / width, and its use as the derivative of a spike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.train.modules import LIF
from snnpipe.train.rules.bptt import BPTT
from training_networks import mean_output

NAMES = sorted(plugins.summaries("surrogates"))
TAIL = {"arctan": 2e-3, "fast_sigmoid": 2e-3}
"""What the heavy tails hold beyond 1000 widths."""


def test_the_five_are_there():
    assert NAMES == ["arctan", "fast_sigmoid", "rectangle", "sigmoid", "triangle"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.5, 1.0, 2.6])
def test_area_peak_and_symmetry(name, width):
    surrogate = plugins.load("surrogates", name)(width)
    assert (surrogate.name, surrogate.width) == (name, width)
    # Finer near the threshold: x = width * sinh(s).
    s = np.linspace(-7.6, 7.6, 400_001)
    x = torch.from_numpy(width * np.sinh(s))
    h = surrogate(x)
    area = float(np.trapezoid((h * width).numpy() * np.cosh(s), s))
    assert abs(area - 1) < TAIL.get(name, 0) + 2e-4
    assert float(h.max()) == pytest.approx(1 / width, rel=1e-6)
    assert float(surrogate(torch.zeros(()))) == pytest.approx(1 / width)
    assert torch.equal(h, surrogate(-x))
    assert bool((h >= 0).all())


@pytest.mark.parametrize(("name", "squared"), [("sigmoid", 2 / 3), ("triangle", 2 / 3)])
def test_sigmoid_and_triangle_of_one_width_have_one_energy(name, squared):
    width = 1.7
    x = torch.linspace(-60, 60, 1_200_001, dtype=torch.float64)
    h = plugins.load("surrogates", name)(width)(x)
    assert float((h**2).sum() * 1e-4) == pytest.approx(squared / width, rel=1e-5)


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
