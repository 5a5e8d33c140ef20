"""Recipes: read strictly, written out whole, read back equal."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snnpipe.errors import RequestError
from snnpipe.train.recipe import (
    DataPart,
    ModelPart,
    NeuronPart,
    Recipe,
    SurrogatePart,
    TrainPart,
)
from snnpipe.train.recipe_file import parse_recipe, read_recipe, recipe_hash, to_toml

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))

FULL = """
[data]
name = "mnist"
validation = 0.125
coding = "latency"
flip = true
crop = 4
cutout = 16
mixup = 0.2
autoaugment = true
[model]
name = "mlp"
channels = [3, 5]
strides = [2, 1]
hidden = [7]
width = 24
stem = "imagenet"
dropout = 0.25
[neuron]
name = "cuba_lif"
decay = 0.5
synaptic_decay = 0.75
learn_decay = true
threshold = 2
reset = "subtract"
compare = "ge"
detach_reset = false
[surrogate]
name = "triangle"
width = "auto"
[rule]
name = "bptt"
windows = 2
chosen = 3
rescale = true
gradient = "inv_t"
[loss]
form = "per_step"
label_smoothing = 0.05
mse = 0.05
mse_target = 0.5
teacher = "runs/teacher"
teacher_share = 0.25
temperature = 4
max_synops = 1e5
[train]
steps = 6
draw_steps = true
norm = "per_step"
gain = 0.75
epochs = 3
batch = 17
accumulate = 2
optimizer = "sgd"
lr = 1
weight_decay = 0
momentum = 0.8
schedule = "cosine"
warmup = 0.1
clip = 1.5
average = 0.99
patience = 7
seed = 4294967295
device = "cuda:1"
precision = "bf16"
limit = 99
[quantise]
bits = 4
start = "runs/float"
thresholds = "channel"
[witness]
samples = 5
[source]
paper = "arXiv 2410.11488"
figure = "70.01 % at T = 4"
status = "unverified"
"""


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(RequestError) as caught:
        parse_recipe(text, "here.toml", overrides)
    assert caught.value.code == "E_RECIPE"
    assert caught.value.exit_code == 2
    return caught.value.message


def test_every_field_is_read() -> None:
    recipe = parse_recipe(FULL, "here.toml")
    tables = tomllib.loads(FULL)
    assert {section: set(values) for section, values in asdict(recipe).items()} == {
        section: set(table) for section, table in tables.items()
    }
    for section, table in tables.items():
        for key, value in table.items():
            found = getattr(getattr(recipe, section), key)
            assert found == (tuple(value) if isinstance(value, list) else value)


def test_no_field_of_the_full_recipe_is_a_default() -> None:
    """Guards the test above: a key that is dropped on the way would show."""
    full, plain = parse_recipe(FULL, ""), Recipe(DataPart("digits"))
    for section, values in asdict(full).items():
        for key, value in values.items():
            assert value != getattr(getattr(plain, section), key), f"{section}.{key}"


def test_defaults() -> None:
    recipe = parse_recipe('[data]\nname = "digits"\n', "here.toml")
    assert recipe == Recipe(DataPart("digits"))
    neuron = recipe.neuron
    assert (neuron.name, neuron.decay, neuron.threshold) == ("lif", 0.25, 1.0)
    assert (neuron.reset, neuron.compare, neuron.detach_reset) == ("zero", "gt", True)
    assert (recipe.rule.name, recipe.train.steps, recipe.train.device) == ("rate", 4, "cpu")
    assert (recipe.surrogate.name, recipe.surrogate.width) == ("sigmoid", 1.0)
    assert recipe.witness.samples == 32


def test_whole_number_for_a_float_becomes_a_float() -> None:
    recipe = parse_recipe(FULL, "here.toml")
    assert type(recipe.train.lr) is float
    assert type(recipe.neuron.threshold) is float
    assert type(recipe.train.steps) is int


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("data.name=digits", "data", "name", "digits"),
        ('data.name="digits"', "data", "name", "digits"),
        ("data.validation=0.25", "data", "validation", 0.25),
        ("data.flip=false", "data", "flip", False),
        ("model.channels=[8, 9]", "model", "channels", (8, 9)),
        ("model.hidden=[]", "model", "hidden", ()),
        ("neuron.decay=0.125", "neuron", "decay", 0.125),
        ("neuron.compare = gt", "neuron", "compare", "gt"),
        ("surrogate.width=2", "surrogate", "width", 2.0),
        ("train.lr=1e-3", "train", "lr", 1e-3),
        ("train.device=cuda:0", "train", "device", "cuda:0"),
        ("train.schedule=constant", "train", "schedule", "constant"),
        ("witness.samples=1_000", "witness", "samples", 1000),
    ],
)
def test_override(override: str, section: str, key: str, value: object) -> None:
    plain, changed = (parse_recipe(FULL, "here.toml", o) for o in ([], [override]))
    part = getattr(plain, section)
    assert changed == replace(plain, **{section: replace(part, **{key: value})})
    assert changed != plain


def test_the_last_override_of_a_key_holds() -> None:
    recipe = parse_recipe(FULL, "here.toml", ["train.lr=0.5", "train.lr=0.125"])
    assert recipe.train.lr == 0.125


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.lr=0..1", ['train.lr is "0..1"', "a number above 0"]),
        ("train.lr=0", ["train.lr is 0,", "above 0"]),
        ("train.lr=nan", ["train.lr is nan", "a number"]),
        ("train.lr=1e400", ["train.lr is inf", "a number"]),
        (f"train.lr=1{'0' * 400}", ["train.lr is 1000", "at most 1000000"]),
        ("train.lr=true", ["train.lr is true", "a number"]),
        ("train.steps=0", ["train.steps is 0", "whole number at least 1"]),
        ("train.steps=2.0", ["train.steps is 2.0", "whole number"]),
        ("train.steps=true", ["train.steps is true", "whole number"]),
        ("train.steps=1979-05-27", ["train.steps is 1979-05-27", "whole number"]),
        ("train.seed=4294967296", ["4294967296", "at most 4294967295"]),
        ("train.limit=-1", ["train.limit is -1", "at least 0"]),
        ("loss.label_smoothing=1", ["label_smoothing is 1", "below 1"]),
        ("train.optimizer=adam", ['"adam"', "one of adamw, sgd"]),
        ("data.validation=0.5", ["data.validation is 0.5", "at least 0 and below 0.5"]),
        ("data.flip=True", ['data.flip is "True"', "true or false"]),
        ("data.flip=1", ["data.flip is 1", "true or false"]),
        ("data.name=", ['data.name is ""', "printable text"]),
        ("data.name=3", ["data.name is 3", "printable text"]),
        ("data.name=a\x7fb", ["data.name", "printable text"]),
        ("neuron.decay=1", ["neuron.decay is 1", "at least 0 and below 1"]),
        ("neuron.reset=soft", ['neuron.reset is "soft"', "one of zero, subtract"]),
        ("neuron.reset=[]", ["neuron.reset is []", "one of zero, subtract"]),
        ("model.channels=3", ["model.channels is 3", "list of whole numbers"]),
        ("model.channels=[1, true]", ["[1, true]", "list of whole numbers"]),
        ("model.channels=[1, 2.0]", ["[1, 2.0]", "list of whole numbers"]),
        ("model.strides=[0, 1]", ["[0, 1]", "each at least 1"]),
        ("model.strides=[1]", ["model.channels has 2 entries", "model.strides has 1"]),
        ("train.sede=1", ["unknown key 'train.sede'", "did you mean 'seed'?"]),
        ("train.a.b=1", ["unknown key 'train.a.b'"]),
        ("trian.lr=1", ["section.key=value", "did you mean 'train.lr'?"]),
        ("lr=1", ["section.key=value", "train"]),
        ("train.lr", ["section.key=value", "did you mean 'train.lr'?"]),
        ("train=1", ["section.key=value"]),
        ("", ["section.key=value"]),
        ("train.lr=1\nsteps = 2", ["train.lr is", "a number"]),
    ],
)
def test_refused_override(override: str, parts: list[str]) -> None:
    message = refused(FULL, override)
    for part in parts:
        assert part in message
    if "has 2 entries" not in message:
        assert message.startswith(f"--set {override}: ")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["data.name is missing"]),
        ("[data]\nflip = true", ["data.name is missing"]),
        ("[data\n", ["is not TOML", "line 1"]),
        ('[data]\nname = "a"\nname = "b"', ["is not TOML", "Cannot overwrite"]),
        ('[data]\nname = "a"\n[trian]\n', ["unknown section 'trian'", "did you mean 'train'?"]),
        ('train = 3\n[data]\nname = "a"', ["train is 3", "expected a table [train]"]),
        ('[data]\nname = "a"\nflop = true', ["unknown key 'data.flop'", "did you mean 'flip'?"]),
        ('[data]\nname = "a"\nflip = {x = [1, "y"]}', ['{x = [1, "y"]}', "true or false"]),
        ('[data]\nname = "a"\n[model]\nstrides = [1]', ["4 entries", "model.strides has 1"]),
    ],
)
def test_refused_text(text: str, parts: list[str]) -> None:
    message = refused(text)
    assert message.startswith("here.toml: ")
    for part in parts:
        assert part in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[data]\nname = "é"'.encode("latin-1"))
    for path, part in [
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "directory"),
        (latin, "is not UTF-8"),
    ]:
        with pytest.raises(RequestError, match=part) as caught:
            read_recipe(path)
        assert str(path) in caught.value.message
        assert caught.value.code == "E_RECIPE"


def test_read_recipe_reads_a_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "full.toml"
    path.write_text(FULL, encoding="utf-8")
    assert read_recipe(path) == parse_recipe(FULL, "")
    assert read_recipe(path, ["train.seed=3"]).train.seed == 3
    path.write_text("[data]\nname = 3\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"full\.toml: data\.name is 3"):
        read_recipe(path)


def test_to_toml_writes_every_field() -> None:
    recipe = parse_recipe(FULL, "")
    text = to_toml(recipe)
    assert parse_recipe(text, "") == recipe
    written = [line.partition(" = ")[0] for line in text.splitlines() if " = " in line]
    assert written == [f.name for part in vars(recipe).values() for f in fields(part)]
    assert 'device = "cuda:1"\n' in text
    assert "channels = [3, 5]\n" in text
    assert "detach_reset = false\n" in text


def texts() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=20).filter(str.isprintable)


counts = st.integers(1, 1_000_000)


@settings(max_examples=50, derandomize=True)
@given(
    data=st.builds(
        DataPart, texts(), validation=st.floats(0, 0.5, exclude_max=True), flip=st.booleans()
    ),
    lists=st.lists(st.tuples(counts, counts), max_size=5),
    hidden=st.lists(counts, max_size=3),
    neuron=st.builds(
        NeuronPart,
        st.sampled_from(["lif", "if", "cuba_lif"]),
        decay=st.floats(0, 1, exclude_max=True),
        threshold=st.floats(1e-300, 1e6),
        reset=st.sampled_from(["zero", "subtract"]),
        compare=st.sampled_from(["gt", "ge"]),
    ),
    width=st.one_of(st.just("auto"), st.floats(1e-300, 1e6)),
    lr=st.floats(5e-324, 1e6),
    seed=st.integers(0, 2**32 - 1),
    device=texts(),
)
def test_round_trip(
    data: DataPart,
    lists: list[tuple[int, int]],
    hidden: list[int],
    neuron: NeuronPart,
    width: Literal["auto"] | float,
    lr: float,
    seed: int,
    device: str,
) -> None:
    model = ModelPart("m", tuple(c for c, _ in lists), tuple(s for _, s in lists), tuple(hidden))
    train = TrainPart(lr=lr, seed=seed, device=device)
    recipe = Recipe(data, model, neuron, SurrogatePart(width=width), train=train)
    again = parse_recipe(to_toml(recipe), "")
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)


def test_hash_is_of_the_values_not_of_the_text() -> None:
    recipe = parse_recipe(FULL, "")
    sections = FULL.strip().split("\n[")
    reordered = "\n[".join(["# other", *sections[1:], sections[0].removeprefix("[")])
    assert recipe_hash(parse_recipe(reordered, "")) == recipe_hash(recipe)
    assert recipe_hash(parse_recipe(FULL, "", ["train.lr=1.0"])) == recipe_hash(recipe)
    changes = ["train.seed=1", "data.flip=false", "model.hidden=[]"]
    hashes = {recipe_hash(parse_recipe(FULL, "", [change])) for change in changes}
    assert len(hashes | {recipe_hash(recipe)}) == 4


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.momentum=0.5", "train.momentum is 0.5, which has no use without train.optimizer"),
        ("loss.mse_target=0.5", "loss.mse_target is 0.5, which has no use without loss.mse"),
        ("loss.temperature=3", "loss.temperature is 3.0, which has no use without a loss.teacher"),
        ("loss.teacher_share=1e-2", "loss.teacher_share is 0.01, which has no use"),
        ("neuron.synaptic_decay=0.5", "no use without neuron.name = cuba_lif"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(override: str, part: str) -> None:
    with pytest.raises(RequestError, match=re.escape(part)) as caught:
        parse_recipe('[data]\nname = "digits"\n', "here.toml", [override])
    assert caught.value.code == "E_RECIPE"


VARIANTS = {"2bit": "convnet", "large": "convnet"}
"""Recipes named for what they do with a network."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path: Path) -> None:
    recipe = read_recipe(path)
    data, _, model = path.stem.partition("-")
    assert (recipe.data.name, recipe.model.name) == (
        data,
        VARIANTS.get(model, model) or "convnet",
    )
    # Whose figure nobody has seen says where its settings come from; the others are our own.
    source = recipe.source
    assert (source.status == "unverified") == bool(source.paper) == bool(source.figure)
    if source.status == "own":
        assert recipe.neuron == NeuronPart()
        assert recipe.rule.name == ("bptt" if model == "recurrent" else "rate")
        assert recipe.train.steps == (10 if data == "nmnist" else 4)


RATE = "arXiv 2410.11488"
TUNED = "arXiv 2006.04436"
PUBLISHED = {
    "cifar10-resnet18": (RATE, 4, 300, 128, 0.1, 5e-4),
    "cifar10-resnet19": (RATE, 4, 300, 128, 0.1, 5e-4),
    "cifar100-resnet18": (RATE, 4, 300, 128, 0.1, 5e-4),
    "cifar100-resnet19": (RATE, 4, 300, 128, 0.1, 5e-4),
    "cifar10dvs-vggsnn": (RATE, 10, 300, 128, 0.1, 5e-4),
    "imagenet-sew_resnet34": (RATE, 4, 100, 512, 0.2, 2e-5),
    "imagenet-preact_resnet34": (RATE, 4, 100, 512, 0.2, 2e-5),
    "cifar100-resnet50": (TUNED, 10, 200, 128, 0.1, 5e-4),
    "imagenette-resnet50": (TUNED, 10, 100, 64, 0.1, 5e-4),
}
"""Paper, T, epochs, batch, learning rate and weight decay, as its official code has them; of the
tuned nets only T is the paper's."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_published_settings(path: Path) -> None:
    recipe = read_recipe(path)
    assert (path.stem in PUBLISHED) == (recipe.source.status == "unverified")
    if path.stem not in PUBLISHED:
        return
    train = recipe.train
    numbers = (train.steps, train.epochs, train.batch, train.lr, train.weight_decay)
    assert (recipe.source.paper, *numbers) == PUBLISHED[path.stem]
    assert (train.optimizer, train.momentum, train.schedule, train.warmup) == (
        *("sgd", 0.9, "cosine", 0.0),
    )
    if recipe.source.paper == RATE:
        neuron = NeuronPart(decay=0.2, reset="subtract", compare="ge")
        assert (recipe.neuron, recipe.surrogate.width) == (neuron, 1.0)
        assert (recipe.rule.name, recipe.rule.gradient) == ("rate", "inv_t")
    else:
        assert (recipe.rule.name, recipe.surrogate.width) == ("bptt", "auto")


def test_the_shipped_recipes_are_these() -> None:
    own = ["cifar10", "cifar10-sew_resnet", "digits", "fashion_mnist", "fashion_mnist-resnet18"]
    own += ["fashion_mnist-2bit", "fashion_mnist-large", "mnist", "nmnist", "nmnist-recurrent"]
    assert {path.stem for path in RECIPES} == {*own, *PUBLISHED}
