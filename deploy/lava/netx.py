"""The reader of .net files of lava-dl, without torch: five files of a wheel of 68 MB.

`lava` is a namespace package, so these files stand alone. What they import of slayer, which needs
torch, is one function of resonators; a file with that function alone takes its place.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from ...errors import CouldNotRunError
from .patching import Patch, apply_patch

FOLDER = "lava/lib/dl/netx"
FILES = (
    "hdf5.py",
    "utils.py",
    "blocks/__init__.py",
    "blocks/process.py",
    "blocks/models.py",
)
"""Of `FOLDER`; not its __init__.py, nor sequential_modules.py, which imports torch."""
RESONATORS = "lava/lib/dl/slayer/neuron/rf.py"
_RESONATORS_TEXT = '''"""What netx needs of slayer's resonators: fields of a chip to parameters."""

import math


def neuron_params(device_params, scale=64, p_scale=4096):
    """Threshold, period and decay: the decays are a point of the plane, in polar coordinates."""
    sine, cosine = (float(device_params[name]) / p_scale for name in ("sinDecay", "cosDecay"))
    return {
        "threshold": device_params["vThMant"] / scale,
        "period": 2 * math.pi / math.atan2(sine, cosine),
        "decay": 1 - math.hypot(sine, cosine),
    }
'''
_PATCHES = tuple(
    Patch(
        f"{FOLDER}/hdf5.py",
        f"int(layer_config['{name}'])",
        f"int(np.asarray(layer_config['{name}']).item())",
    )
    for name in ("weight", "bias")
)
"""numpy 2.4 and newer make no scalar of an array of one number."""


def add_netx(wheel: Path, site: Path) -> None:
    """Copy netx out of a wheel of lava-dl into site-packages, and make it stand alone.

    Raises CouldNotRunError (E_PATCH) where a file is missing or is not the one that was expected.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            inside = f"{FOLDER}/{name}"
            try:
                content = archive.read(inside)
            except KeyError as error:
                raise CouldNotRunError("E_PATCH", f"{wheel.name} holds no {inside}") from error
            (site / inside).parent.mkdir(parents=True, exist_ok=True)
            (site / inside).write_bytes(content)
    (site / FOLDER / "__init__.py").write_text("", encoding="utf-8")
    (site / RESONATORS).parent.mkdir(parents=True, exist_ok=True)
    (site / RESONATORS).write_text(_RESONATORS_TEXT, encoding="utf-8")
    for patch in _PATCHES:
        apply_patch(site, patch)
