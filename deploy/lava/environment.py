"""Where the private Lava environment lies, and whether it is there and whole.

Lava 0.10 cannot share ours: it wants old versions of numpy and networkx, patches `multiprocessing`
at import and executes every file beside one of its processes (docs/decisions/009).
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import CouldNotRunError

LAVA_VERSION = "0.10.0"
LAVA_DL_VERSION = "0.6.0"
REVISION = 1
"""Of what `install` makes of these versions; another one is another environment."""
VARIABLE = "SNNPIPE_LAVA"
MARK = "snnpipe-lava.json"
"""Written last: an environment without it is not whole."""


@dataclass(frozen=True)
class Environment:
    """A private environment: its folder, its Python, its packages, whether it reads .net files."""

    folder: Path
    python: str
    packages: dict[str, str]
    netx: bool

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return interpreter_of(self.folder)

    def to_json(self) -> str:
        """The content of `MARK`."""
        facts = {k: v for k, v in asdict(self).items() if k != "folder"}
        content = {"lava": LAVA_VERSION, "revision": REVISION, **facts}
        return json.dumps(content, indent=2, sort_keys=True) + "\n"


def interpreter_of(folder: Path) -> Path:
    """Where the Python of a virtual environment lies."""
    return folder / "bin" / "python"


def default_folder(version: str = platform.python_version()) -> Path:
    """$SNNPIPE_LAVA, or a folder of the user's data, named after Lava's version and Python's."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    short = ".".join(version.split(".")[:2])
    return Path(data) / "snnpipe" / f"lava-{LAVA_VERSION}-r{REVISION}-py{short}"


def read_environment(folder: Path) -> Environment | None:
    """The environment in a folder; None where there is none, or another one than we make."""
    try:
        content: dict[str, Any] = json.loads((folder / MARK).read_text(encoding="utf-8"))
        kept = {key: content.pop(key) for key in ("lava", "revision")}
        found = Environment(folder, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = kept == {"lava": LAVA_VERSION, "revision": REVISION}
    return found if ours and found.interpreter.exists() else None


def find_environment() -> Environment:
    """The environment of this Python; CouldNotRunError (E_MISSING) says how to make it."""
    folder = default_folder()
    found = read_environment(folder)
    if found is None:
        raise CouldNotRunError(
            "E_MISSING", f"Lava is not set up here ({folder}): snnpipe lava setup"
        )
    return found
