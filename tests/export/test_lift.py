"""A lifted network decides as its module did; what has no place in a Network is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lifting starts from a torch module")

from snnpipe import plugins  # noqa: E402 - after the check that torch is here
from snnpipe.errors import RequestError  # noqa: E402
from snnpipe.export.lift import Setting, lift  # noqa: E402
from snnpipe.network.check import check  # noqa: E402
from snnpipe.network.contract import Grid  # noqa: E402
from snnpipe.network.grid import exact_sums, snap  # noqa: E402
from snnpipe.network.layers import AvgPool, Conv, Dense, Network, SumPool  # noqa: E402
from snnpipe.network.neurons import Sum, is_driven  # noqa: E402
from snnpipe.network.nir_file import read_network, write_network  # noqa: E402
from snnpipe.network.simulate import simulate  # noqa: E402
from snnpipe.network.trace import Witness, pack  # noqa: E402
from snnpipe.train.build import build  # noqa: E402
from snnpipe.train.evaluate import outputs  # noqa: E402
from snnpipe.train.frames import in_time, scaled, through  # noqa: E402
from snnpipe.train.modules import IF, LIF, SumPool2d, neurons  # noqa: E402
from snnpipe.train.recipe_file import parse_recipe  # noqa: E402
from snnpipe.train.rules.bptt import Unrolled  # noqa: E402
from snnpipe.verify.replay import replay  # noqa: E402
from torch import nn  # noqa: E402

SETTING = Setting(
    (2, 8, 6),
    steps=3,
    input_scale=1 / 16,
    input_levels=16,
    input_coding="direct",
    producer="a test",
)


class Residual(nn.Module):
    """A spiking block with a residual sum of currents, and one of spikes (SEW)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.lif1 = LIF(decay=0.5, threshold=0.75)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(6)
        self.short = nn.Conv2d(6, 6, 1, bias=False)
        self.lif2 = LIF()
        self.pool = nn.AvgPool2d((2, 1))
        self.conv3 = nn.Conv2d(6, 4, 3, padding=1, dilation=1)
        self.if3 = IF(threshold=1.25)
        self.fc = nn.Linear(4 * 2 * 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.lif1(self.bn1(self.conv1(x)))
        b = self.lif2(self.bn2(self.conv2(a)) + self.short(a))
        c = self.if3(self.conv3(self.pool(a + b)))
        return self.fc(c.flatten(1)) * 0.5


def trained(model: nn.Module) -> nn.Module:
    """Statistics, gains and weights that are not what they start from; in evaluation."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for values, low in (
                (module.running_mean, -0.3),
                (module.running_var, 0.3),
                (module.weight, 0.6),
                (module.bias, 0.2),
            ):
                assert values is not None
                values.data.copy_(torch.rand(values.shape, generator=generator) + low)
    return model.eval()


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def witness(model: nn.Module, setting: Setting = SETTING, n: int = 5) -> Witness:
    levels = np.random.default_rng(2).integers(0, 17, (n, *setting.shape))
    recorded: dict[str, np.ndarray] = {}
    names = {id(module): name for name, module in neurons(model).items()}
    treatment = Unrolled(setting.steps, lambda m, s: recorded.update({names[id(m)]: s.numpy()}))
    with torch.no_grad():
        x = torch.from_numpy((levels * setting.input_scale).astype(np.float32))
        out = through(model, in_time(x, setting.steps), treatment).numpy()
    spikes = {name: pack(values) for name, values in recorded.items()}
    return Witness(levels, np.zeros(n, np.int64), np.arange(n), out, spikes)


def wrong(network: Network, seen: Witness) -> dict[str, int]:
    return {layer.layer: layer.wrong for layer in replay(network, seen)}


def test_a_lifted_residual_net_decides_as_its_module() -> None:
    model = trained(Residual())
    network = lift(model, SETTING)
    check(network, "float")
    assert [layer.name for layer in network.layers] == [
        "lif1", "lif2", "pool.sum", "if3", "readout",
    ]  # fmt: skip
    assert isinstance(network.layer("pool.sum").neuron, Sum)
    assert len(network.layer("lif2").synapses) == 2
    seen = witness(model)
    assert wrong(network, seen) == {"lif1": 0, "lif2": 0, "if3": 0, "readout": 0}
    assert all(layer.judged for layer in replay(network, seen))


def test_the_judge_can_fail() -> None:
    model = trained(Residual())
    network = lift(model, SETTING)
    model.bn2.running_mean += 0.2
    found = wrong(network, witness(model))
    assert found["lif2"] > 0
    assert found["lif1"] == found["if3"] == found["readout"] == 0


def test_fold_equals_the_normalisation_in_float64() -> None:
    model = trained(Residual())
    network = lift(model, SETTING)
    operation = network.layer("lif1").synapses[0].operations[0]
    assert isinstance(operation, Conv)
    assert operation.bias is not None
    assert operation.weight.dtype == operation.bias.dtype == np.float32
    assert operation.name == "conv1"
    assert (operation.stride, operation.padding) == ((2, 1), (1, 0))
    x = torch.rand(3, 2, 8, 6, dtype=torch.float64)
    folded = nn.functional.conv2d(
        x,
        torch.from_numpy(operation.weight).double(),
        torch.from_numpy(operation.bias).double(),
        operation.stride,
        operation.padding,
    )
    plain = model.double().bn1(model.conv1(x))
    assert float((folded - plain).detach().abs().max()) < 1e-6


def test_a_factor_is_folded_and_names_are_the_modules() -> None:
    model = trained(Residual())
    network = lift(model, SETTING)
    dense = network.layer("readout").synapses[0].operations[-1]
    assert isinstance(dense, Dense)
    assert dense.name == "fc"
    contract = network.contract
    assert (contract.steps, contract.input_scale, contract.reset) == (3, 1 / 16, "value")


def on_grid(model: nn.Module) -> nn.Module:
    """Weights in sixteenths, most of a wide map's 0, and statistics in powers of two: all sums are
    exact in float32, before and behind the folding; in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            for parameter in module.parameters():
                kept = torch.rand(parameter.shape) < 24 / parameter[0].numel()
                parameter.data.copy_(torch.randint(-9, 13, parameter.shape) / 16 * kept)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.eps = 0.0
            module.running_var.copy_(4.0 ** torch.randint(-1, 2, module.running_var.shape))
            for values in (module.running_mean, module.bias.data):
                values.copy_(torch.randint(-4, 5, values.shape) / 8)
    return model.eval()


def equal(model: nn.Module, setting: Setting, network: Network, x: np.ndarray) -> list[str]:
    """Hold the reference to the module, bit for bit; the populations that fire, and not always."""
    found = simulate(network, network.frames(x), setting.steps)
    recorded: dict[str, np.ndarray] = {}
    names = {id(module): name for name, module in neurons(model).items()}
    frames = scaled(torch.from_numpy(x), setting.input_scale)
    out = outputs(
        model, frames, setting.steps, lambda m, s: recorded.update({names[id(m)]: s.numpy()})
    )
    assert np.array_equal(found.outputs, out.numpy())
    assert found.spikes.keys() == recorded.keys()
    for name, spikes in recorded.items():
        assert np.array_equal(found.spikes[name], pack(spikes)), name
    return [name for name, spikes in recorded.items() if 0.01 < spikes.mean() < 0.9]


def built(name: str, data: str, sizes: str) -> tuple[nn.Module, Setting]:
    """An architecture on the grid, and how it is lifted."""
    text = f'[data]\nname = "{data}"\n[model]\nname = "{name}"\n{sizes}\n[neuron]\ndecay = 0.5'
    part = plugins.load("data", data)
    setting = Setting(part.shape, 4, part.scale, part.levels, part.coding)
    return on_grid(build(parse_recipe(text, "test"))), setting


def levels(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 16, shape).astype(np.uint8)


def test_a_lifted_residual_architecture_is_the_module() -> None:
    """Branches of spikes meet in one `Sum`, which the next block and its short cut share."""
    sizes = "channels = [4, 4, 4, 6]\nstrides = [1, 1, 1, 2]"
    model, setting = built("sew_resnet", "digits", sizes)
    network = lift(model, setting)
    check(network, "float")
    sources = {x.name: [s.source for s in x.synapses] for x in network.layers}
    assert sources == {
        "lif1": ["input"],
        "block2.body.lif1": ["lif1"],
        "block2.body.lif2": ["block2.body.lif1"],
        "block3.body.conv1.sum": ["block2.body.lif2", "lif1"],
        "block3.body.lif1": ["block3.body.conv1.sum"],
        "block3.body.lif2": ["block3.body.lif1"],
        "block4.body.conv1.sum": ["block3.body.lif2", "block3.body.conv1.sum"],
        "block4.body.lif1": ["block4.body.conv1.sum"],
        "block4.body.lif2": ["block4.body.lif1"],
        "block4.short.lif1": ["block4.body.conv1.sum"],
        "flatten.sum": ["block4.body.lif2", "block4.short.lif1"],
        "readout": ["flatten.sum"],
    }
    assert len(equal(model, setting, network, levels(7, 1, 8, 8))) == 8
    grid = snap(network).contract.arithmetic
    assert isinstance(grid, Grid)
    assert grid.product_exponents["flatten.sum"] == 0  # counts of spikes


class PreActivation(nn.Module):
    """Blocks that fire on a current and add a current to it; one is used by three."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.lif1, self.lif2, self.lif3 = LIF(0.5), LIF(0.5), LIF(0.5)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4 * 48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.stem(x)
        b = a + self.bn1(self.conv1(self.lif1(a)))
        c = self.conv2(self.lif2(b)) + b + a
        return self.fc(self.lif3(c).flatten(1))


def test_a_lifted_pre_activation_net_is_the_module() -> None:
    model = on_grid(PreActivation())
    network = lift(model, SETTING)
    check(network, "float")
    sources = {x.name: [s.source for s in x.synapses] for x in network.layers}
    assert sources == {
        "lif1.sum": ["input"],
        "lif1": ["lif1.sum"],
        "lif2.sum": ["lif1.sum", "lif1"],
        "lif2": ["lif2.sum"],
        "lif3": ["lif2", "lif2.sum", "lif1.sum"],
        "readout": ["lif3"],
    }
    assert equal(model, SETTING, network, levels(9, 2, 8, 6)) == ["lif1", "lif2", "lif3"]


class Normalised(nn.Module):
    """Normalisation in front of neurons that stand on sums, as in He et al.'s pre-activation."""

    def __init__(self, neurons_of_sum: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(4) for _ in range(3))
        self.lif1, self.lif2, self.lif3 = LIF(0.5), neurons_of_sum, LIF(0.5)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4 * 48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.stem(x)
        b = a + self.conv1(self.lif1(self.bn1(a)))
        c = b + self.conv2(self.lif2(self.bn2(b)))
        return self.fc(self.lif3(self.bn3(c) * 0.5).flatten(1))


def test_a_normalisation_without_weights_before_it_is_the_neurons(tmp_path: Path) -> None:
    """Its gain and offset become those of the neurons, exactly; what is summed stays as it is."""
    model = trained(Normalised(LIF(0.5)))
    network = lift(model, SETTING)
    check(network, "float")
    for name, norm, factor in (("lif2", model.bn2, 1.0), ("lif3", model.bn3, 0.5)):
        neuron = network.layer(name).neuron
        gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
        shift = (norm.bias - norm.running_mean * torch.from_numpy(gain)).detach().numpy()
        np.testing.assert_allclose(neuron.gain[:, 0, 0], factor * gain, rtol=1e-6)
        np.testing.assert_allclose(neuron.leak[:, 0, 0], factor * shift, rtol=1e-5, atol=1e-6)
    assert [s.source for s in network.layer("lif3").synapses] == ["lif2.sum", "lif2"]
    seen = witness(model, n=40)
    assert wrong(network, seen) == {"lif1": 0, "lif2": 0, "lif3": 0, "readout": 0}
    write_network(network, tmp_path / "network.nir")
    assert wrong(read_network(tmp_path / "network.nir"), seen)["lif2"] == 0
    model.bn2.bias.data += 0.3
    assert wrong(network, witness(model, n=40))["lif2"] > 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Conv2d(2, 2, 1), LIF(), nn.BatchNorm2d(2), IF()),
         "'2' has no place .* it follows what '1' emits.*, nor do neurons of the kind LIF follow"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), LIF(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)),
         "'2' has no place in a Network: it follows what '1' emits, which has no weights to fold"),
        (nn.Sequential(nn.BatchNorm2d(2), nn.AvgPool2d(2)), "'0' .* it follows what 'input' emits"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.AvgPool2d(2, padding=1), nn.BatchNorm2d(2)),
         "'2' has no place in a Network: it follows 'pool'"),
    ],
)  # fmt: skip
def test_a_normalisation_that_nobody_can_take_is_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        lift(model.eval(), SETTING)
    assert caught.value.code == "E_LIFT"


def test_a_normalised_sum_that_only_neurons_take_goes_into_its_weights() -> None:
    """So that nothing but plain neurons remains, which every target has."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
            self.bn, self.lif, self.fc = nn.BatchNorm2d(4), LIF(), nn.Linear(192, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.lif(self.bn(self.a(x) + self.b(x))).flatten(1))

    model = trained(Branches())
    network = lift(model, SETTING)
    assert not any(is_driven(layer.neuron) for layer in network.layers)
    assert wrong(network, witness(model, n=40)) == {"lif": 0, "readout": 0}


class Pooled(nn.Module):
    """Pools behind weights, with a normalisation behind the pool, and means over 3 values."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv1, self.pool1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1), pool, nn.BatchNorm2d(4)
        self.lif1, self.lif2 = LIF(0.5), LIF(0.5)
        self.pool2, self.conv2 = nn.AvgPool2d((1, 3)), nn.Conv2d(4, 6, 2)
        self.fc = nn.Linear(18, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lif1(self.bn1(self.pool1(self.conv1(x))))
        return self.fc(self.lif2(self.conv2(self.pool2(x))).flatten(1))


@pytest.mark.parametrize("pool", [nn.AvgPool2d((2, 1)), SumPool2d((2, 1))])
def test_pools_and_weights_change_nothing_and_stay_on_the_grid(pool: nn.Module) -> None:
    model = trained(Pooled(pool))
    network = lift(model, SETTING)
    pools = [op for _, _, op in network.operations() if isinstance(op, AvgPool | SumPool)]
    assert [type(op) for op in pools] == [SumPool, SumPool]
    assert wrong(network, witness(model, n=40)) == {"lif1": 0, "lif2": 0, "readout": 0}
    assert exact_sums(snap(network))
    model.conv1.bias.data += 0.2
    assert wrong(network, witness(model, n=40))["lif1"] > 0


def test_a_current_that_two_populations_take_stands_twice_under_two_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.lif1, self.lif2, self.fc = LIF(), LIF(), nn.Linear(144, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            c = self.conv(x)
            return self.fc((self.lif1(self.bn(c)) + self.lif2(c)).flatten(1))

    model = trained(Twice())
    network = lift(model, SETTING)
    check(network, "float")
    names = [op.name for _, _, op in network.operations()]
    assert names == ["conv", "conv.2", "flatten", "fc"]
    assert wrong(network, witness(model)) == {"lif1": 0, "lif2": 0, "readout": 0}


@pytest.mark.parametrize("front", ["channels = []\nstrides = []", "channels = [3]\nstrides = [4]"])
def test_a_lifted_recurrent_architecture_is_the_module(front: str) -> None:
    """Recordings in, each layer its own source with the weights of its module, one step late."""
    model, setting = built("recurrent", "nmnist", f"{front}\nhidden = [12, 9]")
    network = lift(model, setting)
    check(network, "float")
    assert (network.contract.input_coding, network.contract.input_levels) == ("events", 15)
    recurrent = [layer for layer in network.layers if layer.name.startswith("rec")]
    for layer, name in zip(recurrent, ("2", "3") if "[3]" in front else ("1", "2"), strict=True):
        fed, own = layer.synapses
        assert (layer.name, own.source) == (f"rec{name}.neurons", f"rec{name}.neurons")
        assert network.late(layer, own)
        assert not network.late(layer, fed)
        assert [part.name for part in own.operations] == [f"rec{name}.weights"]
        (dense,) = own.operations
        assert isinstance(dense, Dense)
        module = model.get_submodule(f"rec{name}.weights")
        assert np.array_equal(dense.weight, module.weight.detach().numpy())
        assert np.array_equal(dense.bias, module.bias.detach().numpy())
    x = levels(7, 4, 2, 34, 34) // 8
    assert {layer.name for layer in recurrent} <= set(equal(model, setting, network, x))
    cut = replace(recurrent[0], synapses=recurrent[0].synapses[:1])
    cut_layers = tuple(cut if old is recurrent[0] else old for old in network.layers)
    with pytest.raises(AssertionError):
        equal(model, setting, replace(network, layers=cut_layers), x)


def test_a_spiking_output_needs_no_read_out() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 7), LIF(reset="subtract", compare="ge"))
    network = lift(model.eval(), SETTING)
    assert network.output == "2"
    assert (network.contract.reset, network.contract.compare) == ("subtract", "ge")
    assert wrong(network, witness(model)) == {"2": 0}


def test_sum_pools_and_shared_modules() -> None:
    lif = LIF()
    convolution = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(convolution, lif, convolution, lif, SumPool2d(2), nn.Flatten(),
                          nn.Linear(24, 3))  # fmt: skip
    network = lift(model.eval(), SETTING)
    assert [layer.name for layer in network.layers] == ["1", "1.2", "readout"]
    names = [operation.name for _, _, operation in network.operations()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 2)), "max_pool2d"),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(96, 2)), "no weights to fold"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), LIF(), nn.Conv2d(2, 2, 1), LIF(reset="subtract")),
         "differ in reset"),
        (nn.Sequential(nn.Flatten(), nn.Linear(96, 2), nn.Softmax(1)), "softmax"),
    ],
)  # fmt: skip
def test_what_cannot_be_lifted_is_refused_by_name(module: nn.Module, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        lift(module.eval(), SETTING)


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(RequestError, match="training mode"):
        lift(Residual(), SETTING)


def test_diverged_weights_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 2))
    model[1].weight.data[0, 0] = float("nan")
    with pytest.raises(RequestError, match=r"'1'.*not finite"):
        lift(model.eval(), SETTING)
