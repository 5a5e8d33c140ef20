"""Plug-ins: listed without an import, looked up by name, never two of one name."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from snnpipe import plugins
from snnpipe.errors import RequestError

PACKAGE = Path(plugins.__file__).parent


def entry(name: str, value: str = "snnpipe.train.data.mnist:PLUGIN") -> EntryPoint:
    return EntryPoint(name, value, "snnpipe.data")


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint, kind: str = "data") -> None:
    """Let other people's distributions offer ``points`` for a kind."""
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: points if group == f"snnpipe.{kind}" else ()
    )


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_summaries_import_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda *_: pytest.fail("it imports"))
    lines = plugins.summaries(kind)
    folder = PACKAGE.joinpath(*plugins.KINDS[kind].split("."))
    files = {file.stem for file in folder.iterdir() if file.suffix == ".py"}
    assert set(lines) == {name for name in files if not name.startswith("_")}
    for name, line in lines.items():
        assert line, f"{kind} '{name}' has no docstring"
        assert "\n" not in line


def test_a_summary_is_the_first_line_of_the_file() -> None:
    text = (PACKAGE / "train" / "data" / "digits.py").read_text(encoding="utf-8")
    line = plugins.summaries("data")["digits"]
    assert text.startswith(f'"""{line}"""\n')


def test_load_gives_the_object_of_the_file() -> None:
    module = importlib.import_module("snnpipe.train.data.digits")
    assert plugins.load("data", "digits") is module.PLUGIN


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fashion-mnist", "; did you mean 'fashion_mnist'?"),
        ("cifar", "; did you mean 'cifar10'?"),
        ("zebra", "shd"),
        ("", "shd"),
        ("__init__", "shd"),
        ("../rules/rate", "shd"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        plugins.load("data", name)
    assert caught.value.code == "E_PLUGIN"
    message = caught.value.message
    known = ", ".join(plugins.summaries("data"))
    assert "digits, dvs128gesture, fashion_mnist, imagenet" in known
    assert message.startswith(f"there is no '{name}' among the data: {known}")
    assert message.endswith(hint)


def test_a_foreign_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry("letters"))
    assert plugins.load("data", "letters") is plugins.load("data", "mnist")
    assert plugins.summaries("data")["letters"] == "from snnpipe.train.data.mnist:PLUGIN"
    assert "letters" not in plugins.summaries("models")
    with pytest.raises(RequestError, match="did you mean 'letters'"):
        plugins.load("data", "leters")


def test_listing_a_foreign_plugin_does_not_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry("letters", "no_such_module:PLUGIN"))
    assert plugins.summaries("data")["letters"] == "from no_such_module:PLUGIN"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        plugins.load("data", "letters")


@pytest.mark.parametrize(
    "points",
    [
        [entry("mnist", "other:PLUGIN")],
        [entry("letters"), entry("letters", "other:PLUGIN")],
    ],
    ids=["with one of ours", "with one another"],
)
def test_two_of_one_name(points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, *points)
    for look in (plugins.summaries, lambda kind: plugins.load(kind, "letters")):
        with pytest.raises(RequestError) as caught:
            look("data")
        assert caught.value.code == "E_PLUGIN"
        assert f"called '{points[0].name}'" in caught.value.message
        assert "other:PLUGIN" in caught.value.message


def test_one_name_in_two_kinds_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry("mnist"), kind="models")
    assert "mnist" in plugins.summaries("models")
    assert plugins.load("data", "mnist").name == "mnist"
