"""A whole training run: what lies in the folder, that it repeats, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.network.trace import Witness, unpack
from snnpipe.train.build import build
from snnpipe.train.checkpoint import load_run
from snnpipe.train.data.digits import Digits
from snnpipe.train.evaluate import score
from snnpipe.train.fit import fit
from snnpipe.train.modules import IF, LIF, neurons
from snnpipe.train.recipe_file import parse_recipe, read_recipe, to_toml
from snnpipe.train.run import train_run
from snnpipe.train.witness import witness
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """# a short run
[data]
name = "digits"
validation = 0.1
flip = true
[model]
channels = [6, 8]
strides = [2, 1]
hidden = [20]
[neuron]
decay = 0.5
threshold = 0.75
reset = "subtract"
[train]
steps = 3
epochs = 2
limit = 400
[witness]
samples = 7
"""


def _run(out, text=RECIPE):
    return train_run(parse_recipe(text, "test"), None, out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "short"
    facts = _run(out)
    torch.set_num_threads(before)
    return out, facts


def test_the_folder_is_complete(run):
    out, facts = run
    names = {"recipe.toml", "history.json", "model.safetensors", "witness.npz"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "recipe.toml").read_text() == to_toml(parse_recipe(RECIPE, "test"))
    assert json.loads((out / "history.json").read_text()) == facts
    assert facts["images"] == {"train": 360, "validation": 40, "test": 450}
    assert [epoch["epoch"] for epoch in facts["epochs"]] == [1, 2]
    assert set(facts["versions"]) == {"snnpipe", "python", "torch", "numpy"}
    assert facts["seed"] == 0
    assert "1 threads" in facts["machine"]


def test_the_module_comes_back_as_it_was(run):
    out, facts = run
    model, recipe = load_run(out)
    assert recipe == read_recipe(out / "recipe.toml")
    assert not model.training
    data = plugins.load("data", "digits")
    test = data.load(None, "test", 4)
    found = score(model, *map(torch.from_numpy, test), data.scale, 3)
    assert (found.correct, found.n) == (facts["test"]["last"]["correct"], 450)
    assert facts["test"]["last"]["accuracy"] == found.correct / 450
    saved, again = Witness.load(out / "witness.npz"), witness(model, test, data.scale, 3, 7)
    assert np.array_equal(saved.outputs, again.outputs)
    assert saved.spikes.keys() == again.spikes.keys() == neurons(model).keys()
    for name, bits in saved.spikes.items():
        assert np.array_equal(bits, again.spikes[name])


def test_the_witness_tells_what_the_module_did(run):
    out, _ = run
    model, _ = load_run(out)
    seen = Witness.load(out / "witness.npz")
    images, labels = plugins.load("data", "digits").load(None, "test", 4)
    assert seen.inputs.dtype == np.uint8
    assert np.array_equal(seen.inputs, images[:7])
    assert np.array_equal(seen.labels, labels[:7])
    assert seen.indices.tolist() == list(range(7))
    assert seen.outputs.shape == (3, 7, 10)
    assert list(seen.spikes) == ["lif1", "lif2", "lif3"]
    shapes = {"lif1": (6, 4, 4), "lif2": (8, 4, 4), "lif3": (20,)}
    spikes = {name: unpack(seen.spikes[name], shape) for name, shape in shapes.items()}
    # The read-out is a linear map of the last spikes, the first spikes follow conv1's current.
    last = torch.from_numpy(spikes["lif3"]).float()
    torch.testing.assert_close(model.fc(last), torch.from_numpy(seen.outputs), rtol=1e-4, atol=1e-5)
    current = model.bn1(model.conv1(torch.from_numpy(seen.inputs).float() / 16))
    assert np.array_equal(spikes["lif1"][0], (current > 0.75).numpy())


def test_a_run_repeats_bit_for_bit(run, tmp_path):
    out, facts = run
    torch.manual_seed(99)  # whatever the caller's random state is
    before = torch.random.get_rng_state()
    again = _run(tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("model.safetensors", "recipe.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    left, right = (Witness.load(f / "witness.npz") for f in (out, tmp_path / "again"))
    assert np.array_equal(left.outputs, right.outputs)
    assert all(np.array_equal(left.spikes[name], right.spikes[name]) for name in left.spikes)
    for first, second in zip(facts["epochs"], again["epochs"], strict=True):
        times = {"seconds": 0, "waited": 0, "per_second": 0, "ready_per_second": 0}
        assert {**first, **times} == {**second, **times}
    other = _run(tmp_path / "other", RECIPE.replace("limit = 400", "limit = 400\nseed = 1"))
    assert other["epochs"][0]["loss"] != facts["epochs"][0]["loss"]
    left, right = (load_file(f / "model.safetensors") for f in (out, tmp_path / "other"))
    assert not torch.equal(left["conv1.weight"], right["conv1.weight"])


def test_a_run_takes_no_place_that_is_taken(run, tmp_path):
    out, _ = run
    short = RECIPE.replace("epochs = 2", "epochs = 1").replace("limit = 400", "limit = 80")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RequestError, match="holds a run already") as caught:
        _run(out, short)
    assert caught.value.code == "E_RUN"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(RequestError, match="no run folder") as caught:
        _run(precious, short)
    assert caught.value.code == "E_OUT"
    assert (precious / "thesis.tex").read_text() == "x"
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(CouldNotRunError, match="file: File exists"):
        _run(file, short)


@pytest.mark.parametrize(
    ("place", "words"),
    [("new/" + "n" * 300, "File name too long"), ("/proc/x/y", r"cannot write .*/proc/x/y: ")],
)
def test_a_folder_that_cannot_be_made_is_refused_before_work(tmp_path, monkeypatch, place, words):
    monkeypatch.setattr("snnpipe.train.run.fit", _no_work)
    with pytest.raises(CouldNotRunError, match=words) as caught:
        _run(tmp_path / place)
    assert caught.value.code == "E_WRITE"
    assert not any(tmp_path.iterdir())


def _no_work(*_):
    raise AssertionError("it began to train")


def test_a_test_split_that_is_not_there_shows_before_work(tmp_path, monkeypatch):
    load = Digits.load

    def broken(self, folder, split, steps):
        if split == "test":
            raise CouldNotRunError("E_DATA", "t10k: no such file")
        return load(self, folder, split, steps)

    monkeypatch.setattr(Digits, "load", broken)
    monkeypatch.setattr("snnpipe.train.run.fit", _no_work)
    with pytest.raises(CouldNotRunError, match="t10k"):
        _run(tmp_path / "new" / "run")
    assert not any(tmp_path.iterdir())  # nothing that was made for it is left


def test_a_share_that_holds_nothing_out_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr("snnpipe.train.run.fit", _no_work)
    words = r"data\.validation is 0\.01, of 400 images at most half an image of any class"
    with pytest.raises(RequestError, match=words) as caught:
        _run(tmp_path / "run", RECIPE.replace("validation = 0.1", "validation = 0.01"))
    assert caught.value.code == "E_RECIPE"
    with pytest.raises(AssertionError, match="began"):  # one image of a class is enough
        _run(tmp_path / "run", RECIPE.replace("validation = 0.1", "validation = 0.015"))


def test_the_resolved_recipe_stands_where_no_text_is_given(tmp_path):
    short = RECIPE.replace("epochs = 2", "epochs = 1").replace("limit = 400", "limit = 80")
    recipe = parse_recipe(short, "test")
    train_run(recipe, None, tmp_path / "run")
    assert read_recipe(tmp_path / "run" / "recipe.toml") == recipe


def test_the_best_epoch_is_scored_and_the_last_is_kept(run, tmp_path, monkeypatch):
    out, facts = run
    accuracies = [epoch["validation_accuracy"] for epoch in facts["epochs"]]
    assert facts["best_epoch"] == 1 + accuracies.index(max(accuracies))

    def first_was_best(*arguments):
        """As if the first epoch had been best, with a state that says 0 to every image."""
        fitted = fit(*arguments)
        silent = {name: torch.zeros_like(value) for name, value in fitted.best_state.items()}
        return replace(fitted, best=fitted.epochs[0], best_state=silent)

    monkeypatch.setattr("snnpipe.train.run.fit", first_was_best)
    found = _run(tmp_path / "run")
    zeros = int((plugins.load("data", "digits").load(None, "test", 4)[1] == 0).sum())
    assert found["best_epoch"] == 1
    assert found["test"]["best"] == {"accuracy": zeros / 450, "correct": zeros, "n": 450}
    assert found["test"]["last"] == facts["test"]["last"]
    saved = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert saved == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("device", "error"), [("abacus", RequestError), ("cuda:99", None)])
def test_the_device_must_be_there(tmp_path, device, error):
    if error is None:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        error = CouldNotRunError
    text = RECIPE.replace("steps = 3", f'steps = 3\ndevice = "{device}"')
    with pytest.raises(error) as caught:
        _run(tmp_path / "run", text)
    assert caught.value.code == "E_DEVICE"
    assert not (tmp_path / "run").exists()


def _spoil(run, tmp_path, change):
    out, _ = run
    state = load_file(out / "model.safetensors")
    change(state)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(RequestError) as caught:
        load_run(tmp_path)
    assert caught.value.code == "E_CHECKPOINT"
    return caught.value.message


def test_a_checkpoint_must_fit_its_recipe(run, tmp_path):
    assert "lacks 'fc.bias'" in _spoil(run, tmp_path, lambda s: s.pop("fc.bias"))
    assert "holds 'x'" in _spoil(run, tmp_path, lambda s: s.update(x=torch.ones(1)))
    message = _spoil(run, tmp_path, lambda s: s.update({"fc.bias": torch.ones(9)}))
    assert "'fc.bias' is torch.float32 [9]; the recipe expects torch.float32 [10]" in message
    message = _spoil(run, tmp_path, lambda s: s["conv1.weight"].fill_(float("nan")))
    assert "'conv1.weight' holds values that are not finite" in message
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RequestError, match="not readable"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RequestError, match="not readable"):
        load_run(tmp_path)


def test_names_and_parameters_of_the_architectures():
    recipe = parse_recipe(
        '[data]\nname = "fashion_mnist"\n[model]\nname = "convnet"\nchannels = [3, 5]\n'
        'strides = [2, 3]\nhidden = [7]\n[neuron]\nname = "if"\nthreshold = 0.5\ncompare = "ge"\n'
        '[surrogate]\nname = "triangle"\nwidth = 2.0',
        "test",
    )
    model = build(recipe)
    names = [name for name, _ in model.named_children()]
    assert names == ["conv1", "bn1", "if1", "conv2", "bn2", "if2", "flatten",
                     "fc3", "bn3", "if3", "fc"]  # fmt: skip
    assert isinstance(model.if1, IF)
    spiking = model.if3.spiking
    assert (spiking.decay, spiking.threshold, spiking.compare) == (1.0, 0.5, "ge")
    assert (spiking.surrogate.name, spiking.surrogate.width) == ("triangle", 1.0)
    assert model.fc3.in_features == 5 * 5 * 5  # 28 -> 14 -> 5
    assert model.fc.bias is not None
    mlp = build(
        parse_recipe('[data]\nname = "digits"\n[model]\nname = "mlp"\nhidden = [9, 8]', "t")
    )
    names = [name for name, _ in mlp.named_children()]
    assert names == ["flatten", "fc1", "bn1", "lif1", "fc2", "bn2", "lif2", "fc"]
    assert isinstance(mlp.lif1, LIF)


def _names(model: nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if not list(part.children())]


def test_the_residual_architecture():
    text = '[data]\nname = "digits"\n[model]\nname = "sew_resnet"\nchannels = [3, 3, 5]\n'
    model = build(parse_recipe(text + "strides = [1, 1, 3]\nhidden = [7]", "t"))
    body = ["conv1", "bn1", "lif1", "conv2", "bn2", "lif2"]
    assert _names(model) == [
        *("conv1", "bn1", "lif1"),
        *(f"block2.body.{name}" for name in body),
        "block2.after",
        "block2.short",
        *(f"block3.body.{name}" for name in body),
        "block3.after",
        *(f"block3.short.{name}" for name in ("conv1", "bn1", "lif1")),
        *("flatten", "fc4", "bn4", "lif4", "fc"),
    ]
    short = model.block3.short.conv1
    assert (short.kernel_size, short.stride, short.bias) == ((1, 1), (3, 3), None)
    assert (model.block3.body.conv1.stride, model.block3.body.conv2.stride) == ((3, 3), (1, 1))
    assert model.fc4.in_features == 5 * 3 * 3
    same = build(parse_recipe(text + "strides = [1, 2, 1]", "t"))
    assert same.block2.short.conv1.stride == (2, 2)  # same channels, but smaller


@pytest.mark.parametrize("front", [True, False])
def test_the_recurrent_architecture(front):
    sizes = "channels = [3]\nstrides = [2]\n" if front else "channels = []\nstrides = []\n"
    text = '[data]\nname = "nmnist"\n[model]\nname = "recurrent"\n' + sizes
    model = build(parse_recipe(text + "hidden = [9, 4]", "t"))
    first, second = (2, 3) if front else (1, 2)
    assert _names(model) == [
        *(("conv1", "bn1", "lif1") if front else ()),
        "flatten",
        *(f"fc{first}", f"bn{first}", f"rec{first}.neurons", f"rec{first}.weights"),
        *(f"fc{second}", f"bn{second}", f"rec{second}.neurons", f"rec{second}.weights"),
        "fc",
    ]
    assert list(neurons(model))[-1] == f"rec{second}.neurons"
    with pytest.raises(RequestError, match=r"model\.hidden is empty") as caught:
        build(parse_recipe(text + "hidden = []", "t"))
    assert caught.value.code == "E_RECIPE"


def test_a_neuron_used_twice_has_no_witness():
    lif = LIF()
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), lif, nn.Linear(4, 4), lif).eval()
    images = np.zeros((2, 1, 2, 2), np.uint8)
    with pytest.raises(RequestError, match="'2' is used twice"):
        witness(model, (images, np.zeros(2, np.int64)), 1.0, 3, 2)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("validation = 0.1", "validation = 0.0", "train.patience is 3 with data.validation = 0"),
        ("flip = true", "[rule]\nname = 'ottt_online'\n[loss]\nform = 'per_step'",
         "train.accumulate is 2, but rule 'ottt_online'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_work(tmp_path, old, new, words):
    text = RECIPE.replace(old, new) + "[train]\npatience = 3\naccumulate = 2\n"
    text = text.replace("[train]\nsteps = 3\nepochs = 2\nlimit = 400\n", "")
    if "ottt" in new:
        text += 'norm = "per_step"\n'
    with pytest.raises(RequestError, match=words) as caught:
        _run(tmp_path / "run", text)
    assert caught.value.code == "E_RECIPE"
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_told_of_every_epoch(tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    facts = _run(tmp_path / "run")
    seen = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name, key in (("loss/train", "loss"), ("accuracy/validation", "validation_accuracy")):
        points = [(point.step, point.value) for point in seen.Scalars(name)]
        assert points == [(epoch["epoch"], pytest.approx(epoch[key])) for epoch in facts["epochs"]]


def test_without_tensorboard_nothing_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("snnpipe.train.journal.find_spec", lambda _name: None)
    facts = _run(tmp_path / "run")
    assert facts["best_epoch"] >= 1
    assert not (tmp_path / "run" / "tensorboard").exists()
