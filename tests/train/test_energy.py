"""Operations counted in training are those that the verifier reports, and a budget is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export.lift import Setting, lift
from snnpipe.network.fanout import additions, synaptic_operations
from snnpipe.train.coding import seen
from snnpipe.train.energy import Energy, Ledger, Price
from snnpipe.train.evaluate import outputs
from snnpipe.train.examples import Batch
from snnpipe.train.modules import IF, LIF, Recurrent, SumPool2d, neurons
from snnpipe.train.objective import Objective
from snnpipe.train.recipe import LossPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.rules.rate import Rate
from snnpipe.verify.chain import Request, verify
from snnpipe.verify.report import report
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 3


def _recipe(model: str, settings: str = "", train: str = ""):
    text = f'[data]\nname = "digits"\n[model]\nname = "{model}"\n{settings}\n[train]\n'
    return parse_recipe(f"{text}steps = {STEPS}\n{train}", "test")


def _drawn(model: nn.Module) -> nn.Module:
    """In evaluation, with normalisation that neither silences nor floods the neurons."""
    torch.manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 1.0, 3.0)
            nn.init.normal_(module.bias, 0.3, 0.3)
    return model.eval()


def _built(model: str, settings: str = "") -> tuple[nn.Module, object]:
    recipe = _recipe(model, settings)
    torch.manual_seed(3)
    data = seen(recipe)
    built = plugins.load("models", model).build(recipe, data.shape, data.classes)
    return _drawn(built), data


def _lifted(model: nn.Module, data):
    return lift(model, Setting(data.shape, STEPS, data.scale, data.levels, data.coding))


def _fired(model: nn.Module, network, frames: torch.Tensor) -> dict[str, np.ndarray]:
    """What a trace would hold, of the spikes of the module itself."""
    samples = frames.shape[-4]
    fired = {
        name: np.zeros((STEPS, *network.shape_of(name)), np.int64)
        for name in [network.input, *network.by_name]
    }
    names = {id(module): name for name, module in neurons(model).items()}

    def watch(module, spikes):
        fired[names[id(module)]] += (spikes != 0).sum(1).numpy()

    outputs(model, frames, STEPS, watch)
    moving = frames if frames.dim() == 5 else frames.expand(STEPS, *frames.shape)
    fired[network.input] += (moving != 0).sum(1).numpy()
    assert samples == moving.shape[1]
    return fired


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("convnet", "channels = [5, 6, 4]\nstrides = [2, 1, 1]\nhidden = [9]"),
        ("mlp", "hidden = [20, 11]"),
        ("sew_resnet", "channels = [4, 4, 6]\nstrides = [1, 1, 2]"),
        ("recurrent", "channels = [4]\nstrides = [2]\nhidden = [8]"),
        ("resnet18", "width = 2"),
        ("sew_resnet34", "width = 2"),
    ],
)
def test_what_is_counted_is_what_the_network_counts(name, settings):
    model, data = _built(name, settings)
    torch.manual_seed(1)
    frames = torch.rand(4, *data.shape)
    network = _lifted(model, data)
    expected = synaptic_operations(network, _fired(model, network, frames))
    found = Energy.of(model, data, STEPS).count(model, frames)
    assert np.array_equal(found, sum(layer.synops for layer in expected.values()))
    assert found.dtype == np.int64
    assert found.sum() > 600


class _Odd(nn.Module):
    """Pooled spikes, groups, dilation, branches that meet, a border that not all windows reach."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=(2, 1), padding=(1, 0))
        self.grouped = nn.Conv2d(4, 6, 3, padding=(2, 1), groups=2)
        self.wide = nn.Conv2d(4, 6, 3, padding=(3, 2), dilation=2)
        self.pool, self.sum = nn.AvgPool2d((1, 2)), SumPool2d(2, 2, 1)
        self.a, self.b, self.c = LIF(0.5, 0.2), IF(0.3), LIF(0.25, 0.2)
        self.fc, self.out = nn.Linear(6 * 4 * 2, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = self.pool(self.a(self.first(x)))
        x = self.b(self.grouped(x) + 0.5 * self.wide(x))
        return self.out(self.c(self.fc(torch.flatten(self.sum(x), 1))))


def test_maps_of_any_form_are_counted():
    _, data = _built("mlp", "hidden = [4]")
    torch.manual_seed(5)
    model = _Odd().eval()
    frames = torch.rand(5, 1, 8, 8)
    network = _lifted(model, data)
    expected = synaptic_operations(network, _fired(model, network, frames))
    found = Energy.of(model, data, STEPS).count(model, frames)
    assert np.array_equal(found, sum(layer.synops for layer in expected.values()))
    assert found.sum() > 600


def test_spikes_that_enter_are_counted_and_levels_are_not():
    recipe = parse_recipe(
        '[data]\nname = "digits"\ncoding = "latency"\n[model]\nname = "mlp"\nhidden = [12]', "test"
    )
    data = seen(recipe)
    model = _drawn(plugins.load("models", "mlp").build(recipe, data.shape, data.classes))
    images = data.load(None, "test", STEPS)[0][:6]
    network = lift(model, Setting(data.shape, STEPS, data.scale, data.levels, data.coding))
    frames = torch.from_numpy(images).float().transpose(0, 1)
    expected = synaptic_operations(network, _fired(model, network, frames))
    energy = Energy.of(model, data, STEPS)
    found = energy.of_images(model, images, data.scale, batch=4)
    assert np.array_equal(found, sum(layer.synops for layer in expected.values()))
    assert energy.entering_of(frames) == pytest.approx(12 * int((images != 0).sum()) / 6)
    direct = Energy.of(model, seen(_recipe("mlp", "hidden = [12]")), STEPS)
    assert direct.entering_of(frames) == 0.0


def test_the_report_shows_the_same_integer():
    """Trained, rounded to weights whose sums are exact, lifted, verified."""
    data = seen(_recipe("mlp"))
    images, labels = data.load(None, "train", STEPS)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), LIF(0.25, 0.5), nn.Flatten(), nn.Linear(96, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for rows in np.array_split(np.arange(320), 10):
        frames = torch.from_numpy(images[rows]).float() * data.scale
        (part,) = Rate()(model, frames, STEPS)
        optimizer.zero_grad()
        F.cross_entropy(part.mean, torch.from_numpy(labels[rows])).backward()
        optimizer.step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    network = _lifted(model.eval(), data)
    x, y = (part[:40] for part in data.load(None, "test", STEPS))
    document = report(verify(Request(network, x, y, {})), "test")
    counted = Energy.of(model, data, STEPS).of_images(model, x, data.scale)
    for row in document["by_steps"]:
        assert row["synops_per_sample"] * 40 == counted[: row["steps"]].sum()
    assert len(document["by_steps"]) == STEPS
    assert counted.sum() > 5_000


NETS = [("convnet", "channels = [5, 6]\nstrides = [2, 1]\nhidden = [9]")]


@pytest.mark.parametrize(
    ("rule", "norm"),
    [
        ("bptt", "joint"),
        ("bptt_recompute", "joint"),
        ("rate", "joint"),
        ("rate_single_step", "per_step"),
        ("sltt", "joint"),
        ("sltt", "per_step"),
        ("ottt", "per_step"),
    ],
)
def test_every_rule_enters_the_same_operations(rule, norm):
    model, data = _built(*NETS[0])
    model.double()
    torch.manual_seed(2)
    frames = torch.rand(4, *data.shape, dtype=torch.float64)
    energy = Energy.of(model, data, STEPS)
    ledger = Ledger(energy, frames)
    spent, gradient = 0.0, 0.0
    for part in plugins.load("rules", rule)()(model, frames, STEPS, norm, ledger.watch):
        taken = ledger.part(part.share, len(part.outputs))
        model.zero_grad()
        taken.backward()
        spent += float(taken.detach())
        gradient += float(model.conv1.weight.grad.abs().sum())
    assert spent == pytest.approx(energy.count(model, frames).sum() / 4, rel=1e-12)
    assert ledger.spent == pytest.approx(spent, rel=1e-12)
    assert gradient > 1.0


def test_windows_and_fewer_steps_stand_for_all():
    model, data = _built(*NETS[0])
    frames = torch.rand(4, *data.shape)
    energy = Energy.of(model, data, 6)
    whole = energy.count(model, frames).sum() / 4
    ledger = Ledger(energy, frames)
    (part,) = Rate(windows=3)(model, frames, 6, watch=ledger.watch)
    assert float(ledger.part(part.share, len(part.outputs)).detach()) == pytest.approx(whole)
    short = Ledger(energy, frames)
    (part,) = Rate()(model, frames, 2, watch=short.watch)
    first = Energy.of(model, data, 2).count(model, frames).sum() / 4
    assert float(short.part(part.share, 1).detach()) == pytest.approx(3 * first)


def test_the_loss_grows_by_price_times_share_of_the_budget():
    model, data = _built(*NETS[0])
    frames = torch.rand(4, *data.shape)
    batch = Batch(frames, torch.arange(4), torch.arange(4))
    energy = Energy.of(model, data, STEPS)
    price = Price(5_000.0)
    objective = Objective(LossPart(max_synops=5_000.0), energy=energy, price=price)
    losses = []
    for now in (0.0, 0.7):
        price.price = now
        told = objective.on(batch)
        (part,) = Rate()(model, frames, STEPS, watch=told.watch)
        losses.append(float(told(part).detach()))
    spent = energy.count(model, frames).sum() / 4
    assert losses[1] - losses[0] == pytest.approx(0.7 * spent / 5_000, rel=1e-4)
    objective.settle([told])
    assert price.excess == pytest.approx(min(1.0, spent / (0.98 * 5_000) - 1.0), rel=1e-5)


def test_the_price_follows_what_is_spent():
    price = Price(100.0)  # it aims at 98
    assert price.now == 0.0
    price.settle(980.0)  # ten times too much counts as twice, and moves no price
    assert (price.excess, price.price, price.now) == (1.0, 0.0, 2.0)
    price.settle(98.0 * 1.4)
    assert price.price == pytest.approx(0.05 * 0.4)
    assert price.now == pytest.approx(0.05 * 0.4 + 2.0 * 0.4)
    price.settle(98.0 * 1.1)
    assert price.price == pytest.approx(0.05 * 0.5)
    other = Price(100.0)
    other.load_state_dict(price.state_dict())
    assert (other.price, other.excess, other.now) == (price.price, price.excess, price.now)
    price.settle(98.0 * 0.8)
    assert price.price == pytest.approx(0.05 * 0.3)
    assert price.now == 0.0
    for _ in range(9):
        price.settle(98.0 * 0.8)
    assert price.price == 0.0


def test_what_cannot_be_counted_is_refused():
    data = seen(_recipe("mlp"))
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), LIF(), nn.MaxPool2d(2), nn.Flatten())
    with pytest.raises(RequestError, match="through 'max_pool2d'") as caught:
        Energy.of(pooled, data, STEPS)
    assert caught.value.code == "E_TOPOLOGY"
    model, data = _built("preact_resnet34", "width = 2")
    with pytest.raises(RequestError, match="pre-activation") as caught:
        Energy.of(model, data, STEPS)
    assert caught.value.code == "E_TOPOLOGY"


def test_a_rule_without_a_gradient_to_rates_is_refused():
    model, data = _built(*NETS[0])
    ledger = Ledger(Energy.of(model, data, STEPS), torch.rand(2, *data.shape))
    with torch.no_grad():
        (part,) = Rate()(model, torch.rand(2, *data.shape), STEPS, watch=ledger.watch)
    with pytest.raises(RequestError, match="no gradient through to rates") as caught:
        ledger.part(part.share, 1)
    assert caught.value.code == "E_RULE"


def test_a_recurrent_spike_of_the_last_step_arrives_nowhere():
    torch.manual_seed(0)
    spiking = LIF(0.5, 0.1)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 5), Recurrent(spiking, nn.Linear(5, 5))
    ).eval()
    data = seen(_recipe("mlp"))
    late = [one for one in additions(_lifted(model, data)) if one.late]
    assert [one.late for one in late] == [1]
    seen_spikes = []
    frames = torch.rand(3, 1, 8, 8) * 2
    outputs(model, frames, STEPS, lambda _, spikes: seen_spikes.append(spikes))
    recurrent = 5 * int(seen_spikes[0][:-1].sum())
    assert int(seen_spikes[0][-1].sum()) > 0
    assert Energy.of(model, data, STEPS).count(model, frames).sum() == recurrent


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_budget_is_kept(tmp_path, share):
    from snnpipe.train.run import train_run

    text = (
        '[data]\nname = "digits"\n[model]\nchannels = [12, 24]\nstrides = [1, 2]\n'
        "[loss]\nmax_synops = {}\n[train]\nepochs = 12\nlr = 1e-2\n"
    )
    free = train_run(parse_recipe(text.format(1e6), "test"), None, tmp_path / "free")
    spent = free["synops"]["per_inference"]
    budget = round(share * spent)
    found = train_run(parse_recipe(text.format(budget), "test"), None, tmp_path / "run")
    assert found["synops"]["budget"] == budget
    assert found["synops"]["n"] == found["test"]["last"]["n"]
    assert 0.8 * budget < found["synops"]["per_inference"] <= 1.02 * budget
    assert found["test"]["last"]["accuracy"] > 0.9
