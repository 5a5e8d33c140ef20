"""The toy network in the numbers of NeuroBench 2.3.0 and syops 0.0.5, as both tools gave them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import toy_network
from snnpipe.errors import RequestError
from snnpipe.hardware.conventions import neurobench, syops
from snnpipe.network.layers import AvgPool, Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, join

NETWORK = toy_network.network()
TRACE = simulate(NETWORK, toy_network.frame(), toy_network.STEPS, Record(currents=1))


def test_neurobench_by_its_own_output():
    """NeuroBench 2.3.0 on this network in snntorch 1.0.0. Its footprint holds 20 bytes of buffers
    for each of three neuron layers too."""
    found = neurobench(NETWORK, TRACE)
    assert (found.effective_macs, found.effective_acs, found.dense) == (136, 280, 1296)
    assert round(float(found.activation_sparsity), 6) == 0.459302
    by_layer = found.activation_sparsity_by_layer
    assert list(by_layer.values()) == [Fraction(61, 128), Fraction(3, 8), Fraction(1, 2)]
    assert found.membrane_updates == 154
    assert (found.connection_sparsity, found.parameters, found.footprint) == (0, 78, 372 - 3 * 20)


def test_neurobench_is_a_mean_over_samples():
    three = join([simulate(NETWORK, toy_network.frame(n), 4, Record(currents=n)) for n in (1, 2)])
    assert neurobench(NETWORK, three) == neurobench(NETWORK, TRACE)
    # Without every sample's currents the membranes are not known.
    short = simulate(NETWORK, toy_network.frame(3), 4, Record(currents=2))
    assert neurobench(NETWORK, short).membrane_updates is None


def test_neurobench_leaves_zero_weights_out():
    """A zero row of the dense map: 4 operations a spike, not 6 (as its Linear 4 to 3)."""
    weight = np.ones((3, 8), np.float32)
    weight[1] = 0
    bias = np.float32([0.25, 0.0, 0.25])
    fc = Dense("fc", weight, bias)
    last = replace(NETWORK.layers[2], synapses=(Synapse("two", (Flatten("flat"), fc)),))
    network = replace(NETWORK, layers=(*NETWORK.layers[:2], last))
    found = neurobench(network, simulate(network, toy_network.frame(), 4))
    assert found.effective_acs == 220 + 20 * 2
    assert found.connection_sparsity == Fraction(8, 78)
    assert (found.parameters, found.footprint) == (81, 324)


def test_membranes_that_leak_change_without_a_current():
    neuron = LIF(np.float32(0.5), np.float32(100.0))
    layer = Layer("a", neuron, (2,), (Synapse("input"),))
    network = Network("input", (2,), (layer,), "a", NETWORK.contract)
    x = np.zeros((4, 1, 2), np.float32)
    x[0, 0, 0] = 1.0
    found = neurobench(network, simulate(network, x, 4, Record(currents=1)))
    assert found.membrane_updates == 2 + 3


def test_syops_by_its_own_output():
    """syops 0.0.5: edges ignored, additions times mean rates, 67/32 x 144 + 20/8 x 24."""
    found = syops(NETWORK, TRACE)
    assert (found.total, found.ac, found.mac) == (1824, Fraction(723, 2), 1152)
    assert found.ac == 361.5


def test_syops_needs_the_mean_of_its_input():
    kernel = Conv("k", np.ones((2, 2, 1, 1), np.float32))
    pool = AvgPool("pool", (2, 2), (2, 2))
    last = Layer("three", NETWORK.layers[2].neuron, (2, 2, 2), (Synapse("one", (pool, kernel)),))
    network = replace(NETWORK, layers=(*NETWORK.layers[:2], last))
    with pytest.raises(RequestError, match="from 'one' into 'three' is not a single dense map"):
        syops(network, simulate(network, toy_network.frame(), 4))


@pytest.mark.skipif(
    importlib.util.find_spec("neurobench") is None or importlib.util.find_spec("snntorch") is None,
    reason="neurobench and snntorch are not installed",
)
def test_neurobench_itself():
    import torch
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import SNNTorchModel
    from snntorch import Leaky

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 2, 3, padding=1, bias=False)
            self.conv2 = torch.nn.Conv2d(2, 2, 3, stride=2, padding=1, bias=False)
            self.fc = torch.nn.Linear(8, 3, bias=False)
            self.cells = torch.nn.ModuleList(
                Leaky(beta=1.0, threshold=0.9, init_hidden=True) for _ in range(3)
            )

        def forward(self, x):
            x = self.cells[0](self.conv1(x))
            x = self.cells[1](self.conv2(x))
            return self.cells[2](self.fc(x.flatten(1))), x

    net = Toy()
    maps = (net.conv1, net.conv2, net.fc)
    for map_, (_, _, op) in zip(
        maps, (o for o in NETWORK.operations() if hasattr(o[2], "weight")), strict=True
    ):
        map_.weight.data = torch.from_numpy(op.weight.copy())
    model = SNNTorchModel(net)
    data = torch.from_numpy(toy_network.frame())[:, None].repeat(1, 4, 1, 1, 1)
    metric = SynapticOperations()
    model.register_hooks()
    with torch.no_grad():
        preds = model(data)
    metric(model, preds, (data, torch.zeros(1)))
    found = metric.compute()
    assert (found["Effective_MACs"], found["Effective_ACs"], found["Dense"]) == (136, 280, 1296)
