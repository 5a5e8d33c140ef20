"""What a device needs loads nothing heavy; each module is looked at in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "onnxruntime", "onnx", "matplotlib", "lava", "sklearn", "pooch"}


def loaded(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter holds after running ``code``."""
    text = f"import sys\n{code}\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "snnpipe",
        "snnpipe.deploy",
        "snnpipe.hardware",
        "snnpipe.network",
        "snnpipe.plugins",
        "snnpipe.cli",
    ],
)
def test_light(module: str) -> None:
    assert loaded(f"import {module}") == set()


def test_every_module_of_network_and_hardware_is_light() -> None:
    code = (
        "import importlib, pkgutil, snnpipe.network, snnpipe.hardware\n"
        "seen = 0\n"
        "for room in (snnpipe.network, snnpipe.hardware):\n"
        "    for found in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(found.name); seen += 1\n"
        "if seen < 8: raise SystemExit('too few modules were found')"
    )
    assert loaded(code) == set()


def test_listing_all_plugins_is_light() -> None:
    code = "from snnpipe import plugins\nfor kind in plugins.KINDS: plugins.summaries(kind)"
    assert loaded(code) == set()


def test_a_heavy_module_would_be_seen() -> None:
    assert loaded("import pooch") == {"pooch"}
