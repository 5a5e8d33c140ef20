"""Plug-ins: a folder is a kind, a file in it is a member, looked up by name when asked for.

Other people's members come in through entry points of the group ``snnpipe.<kind>``. Nothing is
imported to list names; two members of one name are an error, never a silent choice.
"""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .errors import RequestError, nearest

KINDS = {
    "rules": "train.rules",
    "surrogates": "train.surrogates",
    "models": "train.models",
    "data": "train.data",
    "targets": "export.targets",
    "runtimes": "deploy.runtimes",
}
"""Kind to the package whose modules are its members; each module holds one ``PLUGIN``."""


def _files(kind: str) -> dict[str, Path]:
    folder = Path(__file__).parent.joinpath(*KINDS[kind].split("."))
    return {file.stem: file for file in sorted(folder.glob("[!_]*.py"))}


def _foreign(kind: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"snnpipe.{kind}"):
        if point.name in found or point.name in _files(kind):
            raise RequestError(
                "E_PLUGIN",
                f"two plug-ins of kind '{kind}' are called '{point.name}' "
                f"(one of them is {point.value}); uninstall one",
            )
        found[point.name] = point
    return found


def summaries(kind: str) -> dict[str, str]:
    """Name to first docstring line of every member, without importing any."""
    lines: dict[str, str] = {}
    for name, file in _files(kind).items():
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines[name] = text.partition("\n")[0]
    for name, point in _foreign(kind).items():
        lines[name] = f"from {point.dist.name if point.dist else point.value}"
    return lines


def load(kind: str, name: str) -> Any:
    """The member's object; RequestError (E_PLUGIN) names the nearest when there is none."""
    if name in _files(kind):
        package = __name__.rpartition(".")[0]
        return importlib.import_module(f"{package}.{KINDS[kind]}.{name}").PLUGIN
    foreign = _foreign(kind)
    if name in foreign:
        return foreign[name].load()
    names = sorted([*_files(kind), *foreign])
    raise RequestError(
        "E_PLUGIN",
        f"there is no '{name}' among the {kind}: {', '.join(names)}{nearest(name, names)}",
    )
