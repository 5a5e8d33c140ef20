"""Lava as a user meets it: set up, run, verified, and what is said where it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe.deploy.lava.environment import find_environment
from snnpipe.deploy.lava.selftest import self_test_network
from snnpipe.errors import CouldNotRunError
from snnpipe.network.nir_file import write_network


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_network(self_test_network(), tmp_path / "net.nir")
    return tmp_path / "net.nir"


def test_without_it_the_command_to_run_is_named(snnpipe: Any, file: Path, tmp_path: Path) -> None:
    done = snnpipe("run", file, "--on", "lava", SNNPIPE_LAVA=str(tmp_path / "none"))
    assert done.code == 3
    assert done.sentence.endswith(f"({tmp_path / 'none'}): snnpipe lava setup")


def test_it_is_listed_and_checked_without_being_there(
    snnpipe: Any, file: Path, tmp_path: Path
) -> None:
    found = snnpipe("list", "runtimes", "--json", SNNPIPE_LAVA=str(tmp_path / "none"))
    assert found.json["runtimes"]["lava"].startswith("Lava's own ProcessModels")
    checked = snnpipe("check", file, "--json", SNNPIPE_LAVA=str(tmp_path / "none"))
    assert checked.json["runtimes"]["lava"] == ""


def test_a_python_that_is_none(snnpipe: Any, tmp_path: Path) -> None:
    done = snnpipe("lava", "setup", "--python", tmp_path / "none", "--dir", tmp_path / "lava")
    assert (done.code, done.out) == (2, "")
    assert "is no Python; expected one of version 3.11 or newer" in done.sentence
    assert not (tmp_path / "lava").exists()


@pytest.mark.lava
def test_run_and_verify_on_lava(snnpipe: Any, file: Path, tmp_path: Path) -> None:
    try:
        folder = find_environment().folder
    except CouldNotRunError as missing:
        pytest.skip(missing.message)
    again = snnpipe("lava", "setup", "--json", "--dir", folder)
    assert again.json["folder"] == str(folder)
    assert again.json["seconds"] < 20
    saved = {}
    for name in ("event", "lava"):
        out = tmp_path / f"{name}.npz"
        done = snnpipe("run", file, "--on", name, "--samples", "3", "--save", out)
        assert done.code == 0, done.err
        with np.load(out) as stored:
            saved[name] = {key: stored[key] for key in stored.files}
    assert saved["event"].keys() == saved["lava"].keys()
    assert all((saved["event"][key] == saved["lava"][key]).all() for key in saved["event"])
    assert saved["lava"]["spikes.last"].any()
    verified = snnpipe("verify", file, "--on", "loihi,lava", "--samples", "4", "--json")
    assert verified.code == 0, verified.err
    arrows = {a["to"]: a["strength"] for a in verified.json["chain"]}
    assert (arrows["loihi"], arrows["lava"]) == ("proven", "proven")
