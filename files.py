"""Files that appear whole or not at all, their hashes, and the manifest beside an artefact."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import CouldNotRunError, RequestError

MANIFEST = "manifest.json"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space and no NaN: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CouldNotRunError(
            "E_WRITE", f"cannot write {path}: {error.strerror or error}"
        ) from error


def _beside(path: Path) -> Path:
    """An unused hidden name in the same folder; unlike tempfile's, it gets the user's umask."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file beside ``path``, then put it in place in one step.

    Raises CouldNotRunError (E_WRITE) when the place cannot be written; ``path`` is then as it was.
    """
    with _unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise CouldNotRunError("E_WRITE", f"cannot write {path}: it is no regular file")
        beside = _beside(path)
        beside.touch(exist_ok=False)
        try:
            write(beside)
            _sync(beside)
            beside.replace(path)
            _sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""

    def write(beside: Path) -> None:
        beside.write_text(text, encoding="utf-8")

    write_file(path, write)


def write_folder(path: Path, write: Callable[[Path], None], mark: str = MANIFEST) -> None:
    """Let ``write`` fill a folder beside ``path``, then swap it in; the old one goes last.

    Only a folder of our own is replaced: an empty one, or one that holds the file ``mark``.
    """
    with _unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise CouldNotRunError("E_WRITE", f"cannot write {path}: something is in the way")
        if path.is_dir() and not (path / mark).is_file() and any(path.iterdir()):
            raise CouldNotRunError(
                "E_WRITE", f"cannot write {path}: it holds other files, and no {mark} of ours"
            )
        beside = _beside(path)
        beside.mkdir()
        old = beside.with_name(beside.name + ".old")
        try:
            write(beside)
            for file in beside.rglob("*"):
                _sync(file)
            _sync(beside)
            if path.exists():
                path.replace(old)
            try:
                beside.replace(path)
            except OSError:
                if old.exists():
                    old.replace(path)
                raise
            _sync(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path, mark: str = MANIFEST) -> bool:
    """Remove a folder of our own, one that holds ``mark``; whether there was one.

    Raises CouldNotRunError (E_WRITE).
    """
    if not (path / mark).is_file():
        return False
    with _unwritable(path):
        shutil.rmtree(path)
    return True


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` into an artefact folder: the facts and every file's sha256."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    content = {**facts, "files": {name: sha256(folder / name) for name in names}}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read an artefact's manifest and hold every file against its hash.

    Raises RequestError: E_MANIFEST when there is none or it is not one, E_HASH when a file differs.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        hashes = dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(
            "E_MANIFEST", f"{path}: not a readable manifest; expected an object with 'files'"
        ) from error
    there = {file.name for file in folder.iterdir()} - {MANIFEST}
    if there != set(hashes):
        name = sorted(set(hashes) - there or there - set(hashes))[0]
        raise RequestError(
            "E_MANIFEST", f"{path}: it lists other files than there are; one is '{name[:100]}'"
        )
    for name, expected in hashes.items():
        file = folder / name
        found = sha256(file)
        if found != expected:
            raise RequestError(
                "E_HASH",
                f"{file}: its content has sha256 {found[:12]}…, the manifest says "
                f"{str(expected)[:12]}…; export it again",
            )
    return dict(content)
