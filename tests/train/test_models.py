"""Published architectures have the published shapes, refuse what they do not have, and start."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export.lift import Setting, lift
from snnpipe.train.build import rule_of
from snnpipe.train.evaluate import outputs
from snnpipe.train.examples import Batch
from snnpipe.train.modules import IF, LIF, SumPool2d, neurons
from snnpipe.train.objective import Objective
from snnpipe.train.recipe_file import parse_recipe, read_recipe
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from torch import nn
from training_networks import mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def built(name: str, settings: str = "", shape=(3, 32, 32), classes: int = 10) -> nn.Module:
    recipe = parse_recipe(f'[data]\nname = "digits"\n[model]\nname = "{name}"\n{settings}', "t")
    return plugins.load("models", name).build(recipe, shape, classes)


IMAGENET = 'stem = "imagenet"'
SIZES = {
    # He et al., as counted for torchvision's models of ImageNet: no published one differs in size.
    ("resnet18", IMAGENET): (17, 11_689_512),
    ("resnet34", IMAGENET): (33, 21_797_672),
    ("resnet50", IMAGENET): (49, 25_557_032),
    ("sew_resnet34", IMAGENET): (36, 21_797_672),
    ("preact_resnet34", IMAGENET): (32, 21_797_672),
    # Their usual CIFAR forms, with a stem of 3x3.
    ("resnet18", ""): (17, 11_173_962),
    ("resnet34", ""): (33, 21_282_122),
    ("resnet50", ""): (49, 23_520_842),
}


@pytest.mark.parametrize(("name", "stem"), SIZES)
def test_residual_nets_have_the_published_size(name, stem):
    shape, classes = ((3, 224, 224), 1000) if stem else ((3, 32, 32), 10)
    with torch.device("meta"):
        model = built(name, stem, shape, classes)
    populations, parameters = SIZES[name, stem]
    assert len(neurons(model)) == populations
    assert sum(p.numel() for p in model.parameters()) == parameters


def _convolved(*channels: int) -> int:
    """Parameters of 3x3 convolutions one after the other, each with its normalisation."""
    return sum(9 * a * b + 2 * b for a, b in pairwise(channels))


def test_the_other_nets_have_the_published_size():
    with torch.device("meta"):
        vgg11, vggsnn = built("vgg11"), built("vggsnn", shape=(2, 48, 48))
        resnet19 = built("resnet19")
    assert sum(p.numel() for p in vgg11.parameters()) == (
        _convolved(3, 64, 128, 256, 512, 512, 512, 512, 512) + 512 * 10 + 10
    )
    assert vggsnn.fc.in_features == 4608
    # 9.27 million, says the table of arXiv 2202.11946.
    assert sum(p.numel() for p in vggsnn.parameters()) == 9_268_746
    stages = 6 * [128] + 6 * [256] + 4 * [512]
    short = sum(a * b + 2 * b for a, b in ((128, 256), (256, 512)))
    dense = 512 * 256 + 2 * 256 + 256 * 10 + 10
    assert sum(p.numel() for p in resnet19.parameters()) == (
        _convolved(3, 128, *stages) + short + dense
    )
    assert len(neurons(resnet19)) == 18


def _shapes(model: nn.Module, x: torch.Tensor) -> list[tuple[int, ...]]:
    """What each population holds, in the order they fire."""
    seen: list[tuple[int, ...]] = []
    outputs(model.eval(), x, 1, lambda _, spikes: seen.append(tuple(spikes.shape[2:])))
    return seen


def test_stages_double_the_channels_and_halve_the_image():
    x = torch.rand(2, 3, 32, 24)
    stages = [(8, 32, 24)] * 5 + [(16, 16, 12)] * 4 + [(32, 8, 6)] * 4 + [(64, 4, 3)] * 4
    assert _shapes(built("resnet18", "width = 8"), x) == stages
    found = _shapes(built("resnet50", "width = 2"), x)
    assert found[:4] == [(2, 32, 24), (2, 32, 24), (2, 32, 24), (8, 32, 24)]
    assert found[10:13] == [(4, 32, 24), (4, 16, 12), (16, 16, 12)]  # the 3x3 has the stride
    assert found[-1] == (64, 4, 3)
    assert _shapes(built("resnet19", "width = 4\nhidden = [7, 5]"), x)[-2:] == [(7,), (5,)]


def test_the_imagenet_stem_divides_by_four():
    x = torch.rand(2, 3, 50, 64)
    sew = built("sew_resnet34", f"width = 4\n{IMAGENET}", (3, 50, 64))
    assert [name for name, _ in sew.named_children()][:5] == [
        "conv0", "pool0", "bn0", "lif0", "block1",
    ]  # fmt: skip
    assert _shapes(sew, x)[:2] == [(4, 12, 16), (4, 12, 16)]
    currents = built("preact_resnet34", f"width = 4\n{IMAGENET}", (3, 50, 64))
    assert [name for name, _ in currents.named_children()][:4] == [
        "conv0", "pool0", "bn0", "block1",
    ]  # fmt: skip
    assert isinstance(currents.pool0, SumPool2d)
    assert _shapes(currents, x)[0] == (4, 12, 16)


def test_vgg_pools_where_it_should():
    x = torch.rand(2, 3, 32, 48)
    sizes = [shape[1] for shape in _shapes(built("vgg11", "width = 4", (3, 32, 48)), x)]
    assert sizes == [32, 16, 16, 8, 8, 4, 2, 2]
    model = built("vggsnn", "width = 8\nhidden = [6]", (3, 32, 48))
    assert _shapes(model, x) == [
        *((8, 32, 48), (16, 32, 48), (32, 16, 24), (32, 16, 24)),
        *((64, 8, 12), (64, 8, 12), (64, 4, 6), (64, 4, 6), (6,)),
    ]
    assert model.fc9.in_features == 64 * 2 * 3


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("resnet18", "channels = [4]\nstrides = [1]", r"model.channels is \[4\], but model 'resn"),
        ("resnet50", "strides = [1, 1, 1, 1]", r"model.strides is \[1, 1, 1, 1\]"),
        ("vgg11", IMAGENET, "model.stem is imagenet, but model 'vgg11' has no such setting; its"),
        ("convnet", "width = 8", "model.width is 8, .* its own: channels, strides, hidden, dropo"),
        ("sew_resnet", IMAGENET, "model.stem is imagenet"),
        ("mlp", "channels = [4]\nstrides = [1]", r"model.channels is \[4\]"),
        ("recurrent", "width = 8\nhidden = [3]", "model.width is 8"),
    ],
)
def test_a_setting_that_a_model_does_not_have_is_refused(name, settings, words):
    with pytest.raises(RequestError, match=words) as caught:
        built(name, settings)
    assert caught.value.code == "E_RECIPE"


def test_images_that_are_too_small_are_refused():
    for name, settings, side, words in (
        ("vggsnn", "", 15, "'vggsnn' halves images 4 times, .* 15x15; expected 16x16 or more"),
        ("resnet18", IMAGENET, 2, "stem is imagenet, but the images are 2x2"),
    ):
        with pytest.raises(RequestError, match=words) as caught:
            built(name, f"width = 4\n{settings}", (1, side, side))
        assert caught.value.code == "E_RECIPE"
        model = built(name, f"width = 4\n{settings}", (1, side + 1, side + 1))
        assert outputs(model.eval(), torch.rand(2, 1, side + 1, side + 1), 1).shape == (1, 2, 10)


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet34", "sew_resnet34", "vgg11"])
def test_at_the_start_every_layer_fires_and_none_always(name):
    """However deep: the normalised currents are what decides, not the scale of the weights."""
    torch.manual_seed(1)
    model, rates = built(name, "width = 8"), list[float]()
    next(BPTT()(model, torch.rand(8, 3, 32, 32), 4, watch=lambda _, s: rates.append(s.mean())))
    assert len(rates) == len(neurons(model))
    assert all(0.1 < rate < 0.4 for rate in rates)


def _fire(current: torch.Tensor) -> torch.Tensor:
    return (current > 1).float()


FORMS = {
    "resnet18": lambda x, one, two: _fire(two(_fire(one(x))) + x),
    "sew_resnet34": lambda x, one, two: _fire(two(_fire(one(x)))) + x,
    "preact_resnet34": lambda x, one, two: two(_fire(one(_fire(x)))) + x,
}


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_differ_in_where_the_neurons_stand(name):
    """The first block at one step, against what each form says of it."""
    torch.manual_seed(2)
    x = torch.rand(3, 4, 6, 6) * 3
    block = built(name, "width = 4").block1
    body = block.body
    found = mean_output(BPTT(), block, x, 1)
    by_hand = {
        form: function(x, lambda c: body.bn1(body.conv1(c)), lambda c: body.bn2(body.conv2(c)))
        for form, function in FORMS.items()
    }
    torch.testing.assert_close(found, by_hand.pop(name))
    assert not any(torch.allclose(found, other) for other in by_hand.values())


def test_dropout_silences_the_same_inputs_at_every_step():
    torch.manual_seed(3)
    model = built("vgg11", "width = 4\ndropout = 0.5")
    assert [name for name, _ in model.named_children()][-3:] == ["flatten", "dropout", "fc"]
    model.fc = nn.Flatten()
    x = torch.rand(6, 3, 32, 32)
    (part,) = BPTT()(model, x, 3)
    silent = (part.outputs == 0).all(0)
    kept = part.outputs[:, ~silent]
    model.dropout.eval()
    (whole,) = BPTT()(model, x, 3)
    torch.testing.assert_close(kept, 2 * whole.outputs[:, ~silent])
    assert (whole.outputs[:, silent] > 0).any()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_starts(path: Path) -> None:
    """One update on random frames of the data set's shape, narrow where the published net is wide:
    the loss is a number, and every weight has a gradient."""
    recipe = read_recipe(path, ["train.batch=2"])
    if recipe.model.name not in ("convnet", "sew_resnet", "mlp", "recurrent"):
        recipe = replace(recipe, model=replace(recipe.model, width=4))
    if recipe.surrogate.width == "auto":  # found in a run of its own, before the first update
        recipe = replace(recipe, surrogate=replace(recipe.surrogate, width=1.5))
    data = plugins.load("data", recipe.data.name)
    torch.manual_seed(4)
    model = plugins.load("models", recipe.model.name).build(recipe, data.shape, data.classes)
    moving = (recipe.train.steps,) if data.coding == "events" else ()
    labels = torch.randint(0, data.classes, (2,))
    batch = Batch(torch.rand(*moving, 2, *data.shape), labels, labels)
    losses = []
    for part in rule_of(recipe)(model, batch.frames, recipe.train.steps, recipe.train.norm):
        losses.append(Objective(recipe.loss).on(batch)(part))
        losses[-1].backward()
    assert math.isfinite(sum(float(loss.detach()) for loss in losses))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.fc.weight.grad.abs().sum() > 0
    first = next(p for p in model.parameters() if p.dim() > 1)
    assert first.grad.abs().sum() > 0


def test_a_narrow_resnet_learns_under_rate():
    """A few updates on two classes that differ plainly."""
    torch.manual_seed(5)
    model = built("resnet18", "width = 4", (1, 16, 16), 2)
    x = torch.rand(32, 1, 16, 16) * 0.5
    labels = torch.arange(32) % 2
    x[labels == 1, :, :8] += 0.5
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(mean_output(Rate(), model, x, 4), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.5
    assert losses[-1] < 0.25


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.GroupNorm(2, 4), "'group_norm': its statistics are each sample's own.*use BatchNorm"),
        (nn.LayerNorm(6), "'layer_norm': its statistics are each sample's own"),
        (nn.InstanceNorm2d(4), "'instance_norm': its statistics are each sample's own"),
        (nn.ZeroPad2d(1), "'pad': give the padding"),
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 2, 3)), "'conv1d': frames are"),
        (nn.ConvTranspose2d(4, 2, 3), "'conv_transpose2d': no operation of a Network enlarges"),
        (nn.Upsample(scale_factor=2), "'interpolate': no operation of a Network enlarges"),
        (nn.Dropout2d(0.5), "'dropout2d': use Dropout"),
        (nn.GELU(), "'gelu': it may use adaptive_avg_pool2d, add"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_modules_that_have_no_place_are_refused_with_the_reason(module, words):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), LIF(), module)
    for rule in (BPTT(), Rate()):
        with pytest.raises(RequestError, match=words) as caught:
            mean_output(rule, model, torch.rand(3, 2, 6, 6), 2)
        assert caught.value.code == "E_MODEL"


def test_modules_that_have_a_place_train_and_lift():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), LIF(), nn.Identity(), nn.Dropout(0.25),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(4, 6, bias=False),
        nn.BatchNorm1d(6, momentum=None), IF(), nn.Linear(6, 3),
    )  # fmt: skip
    x = torch.rand(8, 2, 6, 6)
    for rule in (BPTT(), Rate()):
        model.train()
        mean_output(rule, model, x, 2).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    network = lift(model.eval(), Setting((2, 6, 6), 2, 1 / 256, 255, "direct"))
    assert [layer.name for layer in network.layers] == ["2", "8", "readout"]
