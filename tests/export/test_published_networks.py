"""Networks of published shape, from module to runtimes: the same spikes all the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lifting starts from a torch module")
pytest.importorskip("onnxruntime")

from snnpipe import plugins  # noqa: E402 - after the check that torch is here
from snnpipe.export.lift import Setting, lift  # noqa: E402
from snnpipe.export.write import write_targets  # noqa: E402
from snnpipe.network.check import check  # noqa: E402
from snnpipe.network.graph import same_network  # noqa: E402
from snnpipe.network.grid import exact_sums, snap  # noqa: E402
from snnpipe.network.layers import Network, SumPool  # noqa: E402
from snnpipe.network.neurons import Sum  # noqa: E402
from snnpipe.network.nir_file import read_network, write_network  # noqa: E402
from snnpipe.network.simulate import simulate  # noqa: E402
from snnpipe.network.trace import Record, Witness  # noqa: E402
from snnpipe.train.modules import neurons  # noqa: E402
from snnpipe.train.recipe_file import parse_recipe  # noqa: E402
from snnpipe.train.rules.bptt import BPTT  # noqa: E402
from snnpipe.train.witness import witness  # noqa: E402
from snnpipe.verify.replay import replay  # noqa: E402
from torch import nn  # noqa: E402
from trace_equality import differences  # noqa: E402

STEPS = 3
RUNTIMES = ("torch", "onnx", "event")
WAY = {
    "resnet18": ((1, 12, 12), "width = 4"),
    "sew_resnet34": ((2, 28, 24), 'width = 4\nstem = "imagenet"'),
    "vggsnn": ((2, 16, 16), "width = 8\nhidden = [12]"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def levels(shape: tuple[int, ...], n: int) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (n, *shape)).astype(np.uint8)


def calibrated(name: str, shape: tuple[int, ...], settings: str) -> nn.Module:
    """Weights as drawn, uneven gains and offsets, and the statistics of what flows; evaluation."""
    recipe = parse_recipe(f'[data]\nname = "digits"\n[model]\nname = "{name}"\n{settings}', "t")
    torch.manual_seed(8)
    model = plugins.load("models", name).build(recipe, shape, 5)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.normal_(norm.bias, 0.2, 0.2)
        norm.momentum = 0.5
    x = torch.from_numpy(levels(shape, 24)).float() / 256
    with torch.no_grad():
        for _ in range(12):
            next(BPTT()(model, x, STEPS))
    return model.eval()


def lifted(name: str) -> tuple[nn.Module, Network, np.ndarray]:
    shape, settings = WAY.get(name, ((1, 20, 20), 'width = 4\nstem = "imagenet"'))
    model = calibrated(name, shape, settings)
    network = lift(model, Setting(shape, STEPS, 1 / 256, 255, "direct"))
    check(network, "float")
    return model, network, levels(shape, 4)


def seen(model: nn.Module, x: np.ndarray) -> Witness:
    return witness(model, (x, np.zeros(len(x), np.int64)), 1 / 256, STEPS, len(x))


def all_equal(network: Network, x: np.ndarray, folder: Path) -> None:
    """The reference, and three runtimes of what was written, in every bit; every layer fires."""
    frames, record = network.frames(x), Record(currents=len(x))
    reference = simulate(network, frames, STEPS, record)
    firing = [layer for layer in network.layers if not isinstance(layer.neuron, Sum)]
    for layer in firing:
        assert 0.005 < reference.fired[layer.name].mean() / len(x) < 0.7, layer.name
    write_network(network, folder / "network.nir")
    again = read_network(folder / "network.nir")
    assert same_network(again, network)
    artefact = write_targets(again, ["onnx"], folder)["onnx"]
    for name in RUNTIMES:
        session = plugins.load("runtimes", name).open(again, artefact)
        assert differences(reference, session.run(frames, STEPS, record)) == [], name


@pytest.mark.parametrize("name", WAY)
def test_the_whole_way_on_the_grid(name: str, tmp_path: Path) -> None:
    model, network, x = lifted(name)
    judged = replay(network, seen(model, x))
    assert {layer.layer for layer in judged if layer.judged} >= set(neurons(model))
    assert sum(layer.wrong for layer in judged) == 0
    snapped = snap(network)
    assert exact_sums(snapped)
    all_equal(snapped, x, tmp_path)


def test_a_net_that_sums_currents_goes_the_whole_way_off_the_grid(tmp_path: Path) -> None:
    """Its convolutions on currents would be rounded away on a grid; replay proves each runtime."""
    model, network, x = lifted("preact_resnet34")
    judged = replay(network, seen(model, x))
    assert {layer.layer for layer in judged if layer.judged} >= set(neurons(model))
    assert sum(layer.wrong for layer in judged) == 0
    record, frames = Record(), network.frames(x)
    artefact = write_targets(network, ["onnx"], tmp_path)["onnx"]
    for name in RUNTIMES:
        trace = plugins.load("runtimes", name).open(network, artefact).run(frames, STEPS, record)
        rows = np.arange(len(x))
        found = Witness(x, np.zeros(len(x), np.int64), rows, trace.outputs, trace.spikes)
        judged = replay(network, found)
        assert sum(layer.judged for layer in judged) > 10_000
        assert sum(layer.wrong for layer in judged) == 0, name


@pytest.mark.parametrize("name", ["resnet19", "resnet34", "resnet50"])
def test_the_others_lift_and_have_a_grid(name: str) -> None:
    """Nine or more values make the last mean: a sum whose divisor the read-out has taken."""
    shape = (1, 68, 68)
    settings = 'width = 4\nstem = "imagenet"'
    recipe = parse_recipe(f'[data]\nname = "digits"\n[model]\nname = "{name}"\n{settings}', "t")
    model = plugins.load("models", name).build(recipe, shape, 5).eval()
    network = lift(model, Setting(shape, STEPS, 1 / 256, 255, "direct"))
    check(network, "float")
    assert len(network.layers) == len(neurons(model)) + 1
    dense = network.layers[-1].synapses[0] if name != "resnet19" else network.layers[-2].synapses[0]
    pool, _, last = dense.operations
    assert isinstance(pool, SumPool)
    count = pool.kernel[0] * pool.kernel[1]
    assert count in (9, 25)
    weight = (model.fc1 if name == "resnet19" else model.fc).weight.detach().numpy()
    if name != "resnet19":  # its hidden layer has a normalisation in it too
        np.testing.assert_allclose(last.weight * count, weight, rtol=1e-6)
    assert exact_sums(snap(network))
