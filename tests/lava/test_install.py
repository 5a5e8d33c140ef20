"""`snnpipe lava setup`: whole or not at all, patches that are checked, mistakes told in a line."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from snnpipe.deploy.lava import install, netx
from snnpipe.deploy.lava.environment import (
    MARK,
    Environment,
    default_folder,
    find_environment,
    interpreter_of,
    read_environment,
)
from snnpipe.deploy.lava.install import PATCHES, python_version, set_up
from snnpipe.deploy.lava.netx import FILES, FOLDER, RESONATORS, add_netx
from snnpipe.deploy.lava.patching import Patch, apply_patch
from snnpipe.errors import CouldNotRunError, RequestError

PATCH = Patch("a.py", "x: np.int8\n", "x: np.int32\n")


def test_a_patch_is_applied_once_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("y: np.int8\nx: np.int8\n")
    for _ in range(2):
        apply_patch(tmp_path, PATCH)
        assert file.read_text() == "y: np.int8\nx: np.int32\n"


@pytest.mark.parametrize(
    "text", ["", "x: np.int8\nx: np.int32\n", "x: np.int8\n" * 2, "x: np.int32\n" * 2, "x: int\n"]
)
def test_a_text_that_is_neither_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(CouldNotRunError, match="is not the file that was expected") as caught:
        apply_patch(tmp_path, PATCH)
    assert caught.value.code == "E_PATCH"
    assert (tmp_path / "a.py").read_text() == text
    (tmp_path / "a.py").unlink()
    with pytest.raises(CouldNotRunError, match="0 times and what replaces it 0 times"):
        apply_patch(tmp_path, PATCH)


def test_a_patch_whose_new_text_holds_the_old(tmp_path: Path) -> None:
    patch = Patch("b.py", "class A:", "@frozen\nclass A:")
    file = tmp_path / "b.py"
    file.write_text("class A: ...\n")
    for _ in range(2):
        apply_patch(tmp_path, patch)
        assert file.read_text() == "@frozen\nclass A: ...\n"


def wheel(folder: Path, **texts: str) -> Path:
    path = folder / "lava_dl-0.6.0-py3-none-any.whl"
    given = dict.fromkeys(FILES, "")
    given["hdf5.py"] = "int(layer_config['weight'])\nint(layer_config['bias'])\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**given, **texts}.items():
            archive.writestr(f"{FOLDER}/{name}", text)
        archive.writestr(f"{FOLDER}/__init__.py", "from . import sequential_modules")
        archive.writestr(f"{FOLDER}/sequential_modules.py", "import torch")
    return path


def test_netx_stands_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for _ in range(2):
        add_netx(wheel(tmp_path), site)
    found = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert found == {f"{FOLDER}/{name}" for name in (*FILES, "__init__.py")} | {RESONATORS}
    assert (site / FOLDER / "__init__.py").read_text() == ""
    assert "int(np.asarray(layer_config['bias']).item())" in (site / FOLDER / "hdf5.py").read_text()
    space: dict[str, Any] = {}
    exec((site / RESONATORS).read_text(), space)  # noqa: S102 - our own text
    found = space["neuron_params"]({"sinDecay": 2048, "cosDecay": 2048, "vThMant": 96})
    assert found == pytest.approx({"threshold": 1.5, "period": 8, "decay": 1 - 0.5**0.5})


def test_another_netx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CouldNotRunError, match=r"hdf5.py is not the file.*'int\(layer_config"):
        add_netx(wheel(tmp_path, **{"hdf5.py": "int(layer['weight'])"}), tmp_path / "site")
    path = tmp_path / "lava_dl-0.6.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(CouldNotRunError, match=f"holds no {netx.FOLDER}/hdf5.py"):
        add_netx(path, tmp_path / "site")


def test_an_interpreter_that_will_not_do(tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\necho 3.10.13\n")
    old.chmod(0o755)
    assert python_version(sys.executable) == "{}.{}.{}".format(*sys.version_info)
    for name, said in ((old, "Python 3.10.13"), (tmp_path / "none", "no Python")):
        with pytest.raises(RequestError, match=f"'{name}' is {said}; expected one of version 3.11"):
            python_version(str(name))


def test_without_a_network_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("INDEX_URL", "http://127.0.0.1:9"), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    place, told = tmp_path / "below" / "lava", list[str]()
    with pytest.raises(CouldNotRunError, match=r"could not fetch lava-nc==0.10.0; is there") as no:
        set_up(place, sys.executable, False, told.append)
    assert (no.value.code, no.value.exit_code, "\n" in no.value.message) == ("E_INSTALL", 3, False)
    assert told[-1] == "lava-nc 0.10.0"
    assert list(place.parent.iterdir()) == []


def fake(folder: Path, python: str, with_netx: bool, tell: Any) -> None:
    interpreter_of(folder).parent.mkdir(parents=True)
    interpreter_of(folder).symlink_to(sys.executable)
    (folder / "lib" / "python3.11" / "site-packages" / "numpy-2.4.6.dist-info").mkdir(parents=True)
    tell("filled")


def test_whole_or_not_at_all_and_quick_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr(install, "_fill", fake)

    def fails(worker: object) -> None:
        raise CouldNotRunError("E_LAVA", "the self-test failed")

    monkeypatch.setattr(install, "self_test", fails)
    place = tmp_path / "lava"
    with pytest.raises(CouldNotRunError, match="the self-test failed"):
        set_up(place, sys.executable, False, told.append)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(install, "self_test", lambda worker: told.append("tested"))
    made = set_up(place, sys.executable, False, told.append)
    version = "{}.{}.{}".format(*sys.version_info)
    assert made == Environment(place, version, {"numpy": "2.4.6"}, False)
    assert read_environment(place) == made
    assert told[-1] == "tested"
    told.clear()
    assert set_up(place, sys.executable, False, told.append) == made
    assert told == []
    assert set_up(place, sys.executable, True, told.append).netx
    assert told
    assert set_up(place, sys.executable, False, told.append).netx


def test_a_folder_of_others_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_fill", fake)
    (tmp_path / "mine").touch()
    with pytest.raises(CouldNotRunError, match="it holds other files"):
        set_up(tmp_path, sys.executable, False, str)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SNNPIPE_LAVA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder("3.12.1") == tmp_path / "snnpipe" / "lava-0.10.0-r1-py3.12"
    monkeypatch.setenv("SNNPIPE_LAVA", "~/lava")
    assert default_folder() == Path.home() / "lava"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lava": "0.9.0", "revision": 1}', "whole", "older"]
)
def test_only_an_environment_of_ours_is_one(tmp_path: Path, text: str) -> None:
    found = Environment(tmp_path, "3.11.7", {}, False)
    interpreter_of(tmp_path).parent.mkdir()
    interpreter_of(tmp_path).symlink_to(sys.executable)
    if text in ("whole", "older"):
        content = json.loads(found.to_json())
        text = json.dumps({**content, "revision": content["revision"] - (text == "older")})
    (tmp_path / MARK).write_text(text)
    whole = text.startswith("{") and json.loads(text).get("revision") == 1 and "netx" in text
    assert read_environment(tmp_path) == (found if whole else None)
    interpreter_of(tmp_path).unlink()
    assert read_environment(tmp_path) is None


@pytest.mark.lava
def test_the_real_one_is_patched_and_found(lava_python: Path) -> None:
    found = find_environment()
    (site,) = found.folder.glob("lib/python3.*/site-packages")
    for patch in PATCHES:
        text = (site / patch.file).read_text()
        apply_patch(site, patch)
        assert (site / patch.file).read_text() == text
    assert not (site / "tests").exists()
    assert found.packages["lava_nc"] == "0.10.0"
    assert not {"torch", "scikit_learn"} & set(found.packages)
    assert set_up(found.folder, str(lava_python), False, str) == found
