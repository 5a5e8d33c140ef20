"""The run folder: what lies where, and which one is meant when none is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import CouldNotRunError, RequestError
from .files import MANIFEST

RUNS = Path("runs")
"""Where `snnpipe train` puts its runs, below the current folder."""
SUFFIXES = (".nir", ".net")
"""Network files that commands open."""


@dataclass(frozen=True)
class Place:
    """A run folder, or a bare network file.

    ``network`` is the file that is the truth; ``folder`` holds or will hold artefacts and report.
    """

    network: Path
    folder: Path
    is_run: bool

    @property
    def name(self) -> str:
        """How messages and the report call it."""
        return self.folder.resolve().name if self.is_run else self.network.name

    @property
    def argument(self) -> Path:
        """What a user types to name it."""
        return self.folder if self.is_run else self.network

    @property
    def recipe(self) -> Path:
        """The resolved recipe of a run."""
        return self.folder / "recipe.toml"

    @property
    def history(self) -> Path:
        """What training measured."""
        return self.folder / "history.json"

    @property
    def folded(self) -> Path:
        """The network with its normalisation folded, before it was snapped to the grid."""
        return self.folder / "folded.nir"

    @property
    def witness(self) -> Path:
        """What the trained module did on a few test inputs."""
        return self.folder / "witness.npz"

    @property
    def artefacts(self) -> Path:
        """Folder of all artefacts."""
        return self.folder / "artefacts" if self.is_run else self.folder

    def artefact(self, target: str) -> Path:
        """Folder of one target's artefact."""
        return self.artefacts / target


def new_run(name: str) -> Path:
    """The first free ``runs/<name>``, ``runs/<name>-2``, …, made as an empty folder."""
    path, number = RUNS / name, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = RUNS / f"{name}-{number}"
        except OSError as error:
            raise CouldNotRunError(
                "E_WRITE", f"cannot make {path}: {error.strerror or error}"
            ) from error
        else:
            return path


def newest_run() -> Path:
    """The run trained last; RequestError (E_RUN) when there is none."""
    recipes = [path for path in RUNS.glob("*/recipe.toml") if path.parent.name[0] != "."]
    recipes.sort(key=lambda path: path.stat().st_mtime_ns)
    if not recipes:
        raise RequestError(
            "E_RUN",
            f"there is no run below {RUNS}/; name a run folder or a .nir file, or train one: "
            "snnpipe train recipes/digits.toml",
        )
    return recipes[-1].parent


def unfinished(run: Path) -> bool:
    """Whether a training in this folder began and has not come to its end."""
    left = ("history.json", "model.safetensors", "network.nir")
    begun = (run / "recipe.toml").is_file() and not any((run / name).is_file() for name in left)
    return begun or (run / "state.safetensors").is_file()


def place(argument: Path | None) -> Place:
    """A command's RUN|FILE argument, None for the newest run; RequestError (E_RUN, E_FILE)."""
    path = newest_run() if argument is None else argument
    if (path / MANIFEST).is_file():
        # An artefact: what lies in it must stay as it was written.
        held = (path / f"network{suffix}" for suffix in SUFFIXES)
        path = next((file for file in held if file.is_file()), path)
    if unfinished(path):
        raise RequestError(
            "E_UNFINISHED",
            f"{path}: its training has not finished; go on with: snnpipe train --resume {path}",
        )
    if path.is_dir():
        if not (path / "recipe.toml").is_file() and not (path / "network.nir").is_file():
            raise RequestError(
                "E_RUN", f"{path} is no run: neither recipe.toml nor network.nir lies in it"
            )
        return Place(path / "network.nir", path, is_run=True)
    if not path.exists():
        raise RequestError("E_FILE", f"{path}: there is no such file or folder")
    if path.suffix not in SUFFIXES:
        raise RequestError(
            "E_FILE",
            f"{path}: a run folder, a .nir or a .net file is expected; this release opens other "
            "files only as artefacts of the run they were exported into",
        )
    beside = path.parent if (path.parent / MANIFEST).is_file() else path
    return Place(path, beside.with_name(f"{beside.stem}-artefacts"), is_run=False)
