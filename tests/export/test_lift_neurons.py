"""Every neuron that can be trained, lifted: as its module, and the same on every runtime."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lifting starts from a torch module")

from snnpipe import plugins  # noqa: E402 - after the check that torch is here
from snnpipe.errors import RequestError  # noqa: E402
from snnpipe.export.lift import Setting, lift  # noqa: E402
from snnpipe.export.quantise import quantise  # noqa: E402
from snnpipe.export.write import write_targets  # noqa: E402
from snnpipe.network import neurons as net  # noqa: E402
from snnpipe.network.check import check  # noqa: E402
from snnpipe.network.grid import exact_sums, snap  # noqa: E402
from snnpipe.network.nir_file import read_network  # noqa: E402
from snnpipe.network.simulate import simulate  # noqa: E402
from snnpipe.network.trace import Record  # noqa: E402
from snnpipe.train.evaluate import outputs  # noqa: E402
from snnpipe.train.modules import IF, LIF, CubaLIF, Recurrent, neurons  # noqa: E402
from snnpipe.train.rules.rate import Rate  # noqa: E402
from snnpipe.train.spiking import number  # noqa: E402
from torch import nn  # noqa: E402
from trace_equality import differences  # noqa: E402

STEPS, SHAPE = 5, (2, 6, 5)
SETTING = Setting(SHAPE, STEPS, 1 / 16, 16, "direct", "a test")


def make(form, reset="zero", compare="gt", channels=None):
    threshold = 0.875 if channels is None else [0.5 + 0.25 * c for c in range(channels)]
    rest = (threshold, reset, compare)
    if form == "if":
        return IF(*rest)
    if "cuba" in form:
        return CubaLIF(0.375, 0.7, *rest, learn_decay="learned" in form)
    return LIF(0.7, *rest, learn_decay="learned" in form)


def model_of(form, reset="zero", compare="gt"):
    """Weights that are multiples of 1/16: every sum of currents is exact, in any order."""
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=(2, 1), padding=1),
        make(form, reset, compare, channels=4),
        nn.AvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(60, 7),
        Recurrent(make(form, reset, compare, channels=7), nn.Linear(7, 7)),
        nn.Linear(7, 3),
    )
    for parameter in model.parameters():
        if parameter.dim():
            parameter.data.copy_(torch.randint(-8, 12, parameter.shape) / 16)
    return model.eval()


def frames(n=6):
    levels = np.random.default_rng(2).integers(0, 17, (STEPS, n, *SHAPE))
    return (levels / 16).astype(np.float32)


@pytest.mark.parametrize("form", ["lif", "if", "cuba", "learned", "learned cuba"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_a_lifted_network_fires_as_its_module(form, reset, compare):
    model = model_of(form, reset, compare)
    network = lift(model, SETTING)
    check(network, "float")
    fired = {}
    names = {id(module): name for name, module in neurons(model).items()}
    x = frames()
    out = outputs(
        model,
        torch.from_numpy(x),
        STEPS,
        lambda module, s: fired.update({names[id(module)]: s.sum(1).numpy()}),
    )
    trace = simulate(network, x, STEPS, Record(spikes=6))
    assert np.array_equal(trace.outputs, out.numpy())
    assert fired.keys() == {"1", "5.neurons"}
    for name, count in fired.items():
        assert np.array_equal(trace.fired[name], count)
        assert 0.02 < count.mean() / 6 < 0.98


@pytest.mark.parametrize("form", ["learned", "learned cuba"])
def test_nothing_of_a_learned_decay_is_left_to_round(form):
    model = model_of(form)
    for index, logit in enumerate(p for p in model.parameters() if not p.dim()):
        logit.data.fill_(0.7 - 0.9 * index)
    network = lift(model, SETTING)
    for name, module in neurons(model).items():
        lifted, spiking = network.layer(name).neuron, module.spiking
        assert isinstance(lifted, net.CubaLIF if "cuba" in form else net.LIF)
        for part in spiking.learned:
            array = getattr(lifted, part)
            assert array.dtype == np.float32
            value = array.item()
            assert value == number(getattr(spiking, part))
            assert value * 4096 == round(value * 4096)
            assert 0 < value < 1


def test_thresholds_are_lifted_channel_by_channel():
    network = lift(model_of("lif"), SETTING)
    conv, dense = (network.layer(name).neuron.threshold for name in ("1", "5.neurons"))
    assert conv.shape == (4, 1, 1)
    assert conv.ravel().tolist() == [0.5, 0.75, 1.0, 1.25]
    assert dense.tolist() == [0.5 + 0.25 * c for c in range(7)]
    one = lift(nn.Sequential(nn.Flatten(), nn.Linear(60, 2), LIF(threshold=0.75)).eval(), SETTING)
    assert one.layers[0].neuron.threshold.size == 1


def test_other_channels_than_thresholds_are_refused():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), LIF(threshold=[1.0, 2.0, 3.0])).eval()
    with pytest.raises(RequestError, match="3 thresholds, one per channel"):
        lift(model, SETTING)


def trained(form):
    """A small net that has learned for a few steps, its decays too."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        make(form, channels=4),
        nn.Flatten(),
        nn.Linear(120, 8, bias=False),
        nn.BatchNorm1d(8),
        make(form, channels=8),
        nn.Linear(8, 3),
    )
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    x, labels = torch.from_numpy(frames(24)), torch.arange(24) % 3
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        (part,) = Rate()(model, x, STEPS)
        loss = nn.functional.cross_entropy(part.mean, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    return model.eval()


@pytest.mark.parametrize("form", ["learned", "learned cuba"])
def test_every_runtime_fires_as_the_trained_network(form, tmp_path):
    pytest.importorskip("onnxruntime")
    model = trained(form)
    decays = {number(m.spiking.decay) for m in neurons(model).values()}
    assert 0.7 not in decays
    assert len(decays) == 2
    network = snap(lift(model, SETTING))
    assert exact_sums(network)
    targets = write_targets(network, ["nir", "onnx"], tmp_path)
    (written,) = targets["nir"].glob("*.nir")
    again = read_network(written)
    x = frames()
    reference = simulate(network, x, STEPS, Record(currents=2))
    assert differences(reference, simulate(again, x, STEPS, Record(currents=2))) == []
    for name in ("torch", "onnx", "event"):
        session = plugins.load("runtimes", name).open(network, targets["onnx"])
        assert differences(reference, session.run(x, STEPS, Record(currents=2))) == [], name
    assert all(reference.fired[name].mean() > 0 for name in ("2", "6"))


def test_integers_take_a_learned_decay_and_thresholds_as_they_are():
    network = snap(lift(trained("learned"), SETTING))
    integer, _ = quantise(network)
    check(integer, "integer")
    for name in ("2", "6"):
        before, after = network.layer(name).neuron, integer.layer(name).neuron
        assert after.decay == before.decay
        assert after.threshold.shape == before.threshold.shape
    assert simulate(integer, frames(), STEPS).fired["6"].any()


def test_integers_refuse_a_synaptic_current_by_name(tmp_path):
    network = snap(lift(trained("learned cuba"), SETTING))
    with pytest.raises(RequestError, match="those go past its synaptic current") as caught:
        write_targets(network, ["lava"], tmp_path)
    assert caught.value.code == "E_UNSUPPORTED"


def test_all_forms_differ():
    """A counter-check: the forms above are not one neuron under five names."""
    x = frames()
    found = [
        simulate(lift(model_of(*case), SETTING), x, STEPS).outputs
        for case in product(["lif", "if", "cuba"], ["zero", "subtract"], ["gt", "ge"])
    ]
    assert len({outputs.tobytes() for outputs in found}) == len(found)
