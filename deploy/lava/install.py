"""Making the private Lava environment: wheels, checked patches, and a self-test at the end.

lava-nc 0.10.0 says Python 3.10 and numpy below 2; with one line changed it runs on 3.11 to 3.13
with numpy 2. Nothing of it is kept in this package: it is downloaded and patched where it lies.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...errors import CouldNotRunError, RequestError
from ...files import write_folder
from .environment import (
    LAVA_DL_VERSION,
    LAVA_VERSION,
    MARK,
    Environment,
    interpreter_of,
    read_environment,
)
from .netx import add_netx
from .patching import Patch, apply_patch
from .process import Worker
from .selftest import self_test

PACKAGES = ("numpy", "scipy", "networkx", "asteval<2")
PATCHES = (
    Patch(
        "lava/magma/compiler/var_model.py",
        "@dataclass\nclass ByteEncoder:",
        "@dataclass(unsafe_hash=True)\nclass ByteEncoder:",
    ),
    *(
        Patch(
            "lava/proc/conv/models.py",
            f"    {name}: np.ndarray = LavaPyType(np.ndarray, np.int8, precision=8)",
            f"    {name}: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)",
        )
        for name in ("kernel_size", "stride", "padding", "dilation", "groups")
    ),
    *(
        Patch(
            "lava/magma/core/process/ports/ports.py",
            f"ft.partial(np.reshape, newshape=self.{shape})",
            f"ft.partial(lambda shape, data: np.reshape(data, shape), self.{shape})",
        )
        for shape in ("shape", "old_shape")
    ),
)
"""Python 3.11 and newer refuse an instance without a hash as the default of a dataclass field.
numpy 2 computes in int8 with an int8 and a plain number: a convolution of an image wider than 127,
or with more groups, fails in its process. numpy 2.4 took away the old name of an argument, by which
Lava's ports reshape: a `flatten` between two processes raises."""
_STRAY = "tests"
"""The wheel of lava-nc installs its tests as a top-level package of this name, 11 MB."""

Tell = Callable[[str], None]


def set_up(folder: Path, python: str, with_netx: bool, tell: Tell) -> Environment:
    """The environment in ``folder``, made whole or not at all, or the one there when it will do.

    ``python``: the interpreter to make it from; ``tell`` gets a line a part. Raises RequestError
    (E_PYTHON), CouldNotRunError: E_PLATFORM, E_INSTALL (pip failed), E_PATCH (Lava's text is
    neither the old nor the new), E_LAVA (the self-test failed), E_WRITE.
    """
    version = python_version(python)
    found = read_environment(folder)
    if found is not None and found.python == version and (found.netx or not with_netx):
        return found
    made: list[Environment] = []

    def write(beside: Path) -> None:
        _fill(beside, python, with_netx, tell)
        one = Environment(folder, version, _packages(beside), with_netx)
        tell("self-test: Lava against the reference")
        with Worker.start(interpreter_of(beside)) as worker:
            self_test(worker)
        (beside / MARK).write_text(one.to_json(), encoding="utf-8")
        made.append(one)

    write_folder(folder, write, MARK)
    return made[0]


def size_of(folder: Path) -> int:
    """Bytes that an environment takes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def python_version(python: str) -> str:
    """``3.11.7`` of an interpreter that will do; RequestError (E_PYTHON)."""
    asked = "import sys; print('{}.{}.{}'.format(*sys.version_info[:3]))"
    done = _run([python, "-I", "-c", asked])
    version = "" if done is None or done.returncode else done.stdout.strip()
    parts = tuple(int(part) for part in version.split(".")) if version else ()
    if parts < (3, 11):
        raise RequestError(
            "E_PYTHON",
            f"'{python}' is {'no Python' if not parts else f'Python {version}'}; expected one of "
            "version 3.11 or newer",
        )
    return version


def _fill(folder: Path, python: str, with_netx: bool, tell: Tell) -> None:
    own_pip = importlib.util.find_spec("pip") is not None
    tell(f"virtual environment from {python}")
    venv = [python, "-m", "venv", *(["--without-pip"] if own_pip else []), str(folder)]
    done = _run(venv)
    if done is None or done.returncode:
        raise CouldNotRunError(
            "E_INSTALL",
            f"no virtual environment could be made with {python}; on Debian: apt install "
            "python3-venv",
        )
    target = str(interpreter_of(folder))
    pip = [sys.executable, "-m", "pip", "--python", target] if own_pip else [target, "-m", "pip"]
    site = _site(folder)
    tell(f"lava-nc {LAVA_VERSION}")
    _pip([*pip, "install", "--no-deps", "--ignore-requires-python", f"lava-nc=={LAVA_VERSION}"])
    tell(", ".join(PACKAGES))
    extra = ["h5py"] if with_netx else []
    _pip([*pip, "install", "--only-binary", ":all:", *PACKAGES, *extra])
    for patch in PATCHES:
        apply_patch(site, patch)
    if (site / _STRAY).is_dir():
        shutil.rmtree(site / _STRAY)
    if with_netx:
        tell(f"netx of lava-dl {LAVA_DL_VERSION}")
        with tempfile.TemporaryDirectory() as scratch:
            wanted = f"lava-dl=={LAVA_DL_VERSION}"
            download = ["download", "--no-deps", "--ignore-requires-python", "--dest", scratch]
            _pip([*pip, *download, wanted])
            add_netx(next(Path(scratch).glob("lava_dl-*.whl")), site)


def _site(folder: Path) -> Path:
    (site,) = folder.glob("lib/python3.*/site-packages")
    return site


def _packages(folder: Path) -> dict[str, str]:
    """Distributions of an environment and their versions."""
    names = (path.name.removesuffix(".dist-info") for path in _site(folder).glob("*.dist-info"))
    return dict(name.rsplit("-", 1) for name in sorted(names))


def _pip(arguments: list[str]) -> None:
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "2"]
    done = _run([*arguments, *quiet])
    if done is None or done.returncode:
        lines = [] if done is None else [x for x in done.stderr.splitlines() if "ERROR:" in x]
        said = f": {lines[-1].partition('ERROR:')[2].strip()}" if lines else ""
        wanted = " ".join(part for part in arguments[4:] if "=" in part or part in PACKAGES)
        raise CouldNotRunError(
            "E_INSTALL", f"pip could not fetch {wanted}; is there a network?{said[:300]}"
        )


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str] | None:
    """A command, its output kept; None where there is no such program."""
    try:
        return subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603 - interpreters that the user named
    except OSError:
        return None
