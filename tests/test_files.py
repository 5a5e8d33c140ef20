"""Files and folders appear whole or not at all; a manifest holds them against their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.files import (
    MANIFEST,
    canonical_json,
    read_manifest,
    sha256,
    write_file,
    write_folder,
    write_manifest,
    write_text,
)


def full_disk(path: Path) -> None:
    """Write a part, then meet a full disk."""
    file = path / "part" if path.is_dir() else path
    file.write_text("half", encoding="utf-8")
    raise OSError(errno.ENOSPC, "No space left on device")


def mistake(path: Path) -> None:
    """Write a part, then fail by a mistake of our own."""
    file = path / "part" if path.is_dir() else path
    file.write_text("half", encoding="utf-8")
    raise ZeroDivisionError


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(write: Callable[[], None]) -> str:
    with pytest.raises(CouldNotRunError) as caught:
        write()
    assert (caught.value.code, caught.value.exit_code) == ("E_WRITE", 3)
    return caught.value.message


def test_canonical_json() -> None:
    assert canonical_json({"b": [1, 0.5], "a": None}) == '{"a":null,"b":[1,0.5]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_sha256_of_more_than_one_block(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4100  # a little over 1 MiB
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


# --- one file -------------------------------------------------------------------------------------


def test_write_file_makes_its_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    write_text(path, "")
    assert path.read_bytes() == b""
    assert names(tmp_path) == ["a", "a/b", "a/b/c.txt"]


def test_the_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("old", encoding="utf-8")

    def write(beside: Path) -> None:
        assert beside.parent == tmp_path
        beside.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"

    write_file(path, write)
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("old", [None, "old"])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "c.txt"
    if old is not None:
        path.write_text(old, encoding="utf-8")
    message = refused(lambda: write_file(path, full_disk))
    assert message == f"cannot write {path}: No space left on device"
    assert names(tmp_path) == ([] if old is None else ["c.txt"])
    assert old is None or path.read_text(encoding="utf-8") == old


def test_a_full_disk_at_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    assert "No space left" in refused(lambda: write_text(tmp_path / "c.txt", "new"))
    assert names(tmp_path) == []


def test_our_own_mistake_comes_through_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        write_file(path, mistake)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["c.txt"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_file_where_a_folder_should_be(
    tmp_path: Path, write: Callable[[Path, Callable[[Path], None]], None]
) -> None:
    (tmp_path / "a").write_text("in the way", encoding="utf-8")
    path = tmp_path / "a" / "b"
    assert str(path) in refused(lambda: write(path, lambda beside: None))
    assert (tmp_path / "a").read_text(encoding="utf-8") == "in the way"


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert str(tmp_path / "a") in refused(lambda: write_text(tmp_path / "a", "text"))
    assert names(tmp_path) == ["a", "a/b"]


# --- a folder -------------------------------------------------------------------------------------


def fill(beside: Path) -> None:
    (beside / "sub").mkdir()
    (beside / "sub" / "x").write_text("1", encoding="utf-8")
    (beside / "y").write_text("2", encoding="utf-8")


def test_write_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a" / "out"
    write_folder(path, fill)
    assert names(tmp_path / "a") == ["out", "out/sub", "out/sub/x", "out/y"]
    write_folder(path, lambda beside: (beside / "z").touch(), mark="y")
    assert names(tmp_path / "a") == ["out", "out/z"]


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "out"
    if old:
        write_folder(path, fill)
    before = names(tmp_path)
    message = refused(lambda: write_folder(path, full_disk, mark="y"))
    assert message == f"cannot write {path}: No space left on device"
    assert names(tmp_path) == before


def test_our_own_mistake_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", fill)
    before = names(tmp_path)
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "out", mistake, mark="y")
    assert names(tmp_path) == before


def test_the_old_folder_comes_back_when_the_swap_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    write_folder(path, fill)
    before = names(tmp_path)
    replace = Path.replace

    def fails_to_move_in(self: Path, target: Path) -> Path:
        if target == path and self.joinpath("new").exists():
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_to_move_in)
    message = refused(lambda: write_folder(path, lambda beside: (beside / "new").touch(), "y"))
    assert "Input/output error" in message
    assert names(tmp_path) == before


def test_a_file_where_the_written_folder_should_be(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("a file", encoding="utf-8")
    message = refused(lambda: write_folder(path, fill))
    assert message == f"cannot write {path}: something is in the way"
    assert path.read_text(encoding="utf-8") == "a file"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_is_not_ours_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_folder(path, fill)
    before = names(tmp_path)
    assert "no manifest.json of ours" in refused(lambda: write_folder(path, fill))
    assert names(tmp_path) == before


# --- the manifest ---------------------------------------------------------------------------------


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """An artefact folder of two files with its manifest."""
    folder = tmp_path / "artefact"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "b.txt").write_text("text", encoding="utf-8")
    write_manifest(folder, {"target": "nir", "certificate": {"bound": 0}})
    return folder


def test_manifest_round_trip(artefact: Path) -> None:
    content = read_manifest(artefact)
    assert content["target"] == "nir"
    assert content["certificate"] == {"bound": 0}
    # The first is the digest of "abc" in FIPS 180-2, appendix B.1.
    assert content["files"]["a.bin"] == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert set(content["files"]) == {"a.bin", "b.txt"}


def test_writing_the_manifest_again_does_not_list_it(artefact: Path) -> None:
    before = (artefact / MANIFEST).read_bytes()
    write_manifest(artefact, {"certificate": {"bound": 0}, "target": "nir"})
    assert (artefact / MANIFEST).read_bytes() == before


def test_a_manifest_holds_no_nan(artefact: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_manifest(artefact, {"accuracy": float("nan")})


def test_one_changed_bit_is_found(artefact: Path) -> None:
    (artefact / "a.bin").write_bytes(b"abb")
    with pytest.raises(RequestError) as caught:
        read_manifest(artefact)
    assert caught.value.code == "E_HASH"
    for part in (str(artefact / "a.bin"), "ba7816bf8f01", "export it again"):
        assert part in caught.value.message


def rewrite(folder: Path, files: object) -> None:
    (folder / MANIFEST).write_text(json.dumps({"files": files}), encoding="utf-8")


@pytest.mark.parametrize("name", ["c.bin", "../outside", "/etc/hostname", "", ".", "sub/x"])
def test_a_manifest_names_only_files_of_its_own_folder(artefact: Path, name: str) -> None:
    (artefact.parent / "outside").write_bytes(b"abc")
    (artefact / "sub").mkdir()
    (artefact / "sub" / "x").write_bytes(b"abc")
    rewrite(artefact, {name: sha256(artefact / "a.bin")})
    with pytest.raises(RequestError, match="lists other files") as caught:
        read_manifest(artefact)
    assert caught.value.code == "E_MANIFEST"
    assert f"'{name}'" in caught.value.message


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3", "{}", '{"files": 3}', b"\xff"])
def test_not_a_manifest(artefact: Path, text: str | bytes | None) -> None:
    path = artefact / MANIFEST
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RequestError, match="not a readable manifest") as caught:
        read_manifest(artefact)
    assert caught.value.code == "E_MANIFEST"
    assert str(path) in caught.value.message
