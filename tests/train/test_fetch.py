"""Fetching: once, from the first address that answers, and only the bytes that were published."""

from __future__ import annotations

import hashlib
import http.server
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import IDX, made, put, rows
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError
from snnpipe.train import fetch

IMAGES, LABELS, _, _ = made()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No data folder named, an empty cache."""
    monkeypatch.delenv("SNNPIPE_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache" / "snnpipe"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*args: Any) -> _Quiet:
        return _Quiet(*args, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


CLOSED = "http://127.0.0.1:9"


def published(folder: Path, address: str) -> Any:
    """A data set like MNIST that is published at ``address``."""
    put(folder, IMAGES, LABELS, ending=".gz")
    digests = {name: sha256_of(folder / f"{name}.gz") for name in IDX["test"]}
    return replace(
        plugins.load("data", "mnist"), name="made", addresses=(CLOSED, address), sha256=digests
    )


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_fetched_once_from_the_first_address_that_answers(
    nowhere: Path, served: tuple[Path, str]
) -> None:
    data = published(*served)
    images, labels = data.load(None, "test", 4)
    assert images.tobytes() == IMAGES[16:]
    assert bytes(labels.astype(np.uint8)) == LABELS[8:]
    assert sorted(path.name for path in (nowhere / "made").iterdir()) == [
        f"{name}.gz" for name in IDX["test"]
    ]
    again = replace(data, addresses=(CLOSED,)).load(None, "test", 4)
    assert np.array_equal(again[0], images)


def test_a_damaged_cache_is_fetched_again(nowhere: Path, served: tuple[Path, str]) -> None:
    data = published(*served)
    data.load(None, "test", 4)
    (nowhere / "made" / f"{IDX['test'][0]}.gz").write_bytes(b"damage")
    assert data.load(None, "test", 4)[0].tobytes() == IMAGES[16:]


def test_other_bytes_than_published_are_refused(nowhere: Path, served: tuple[Path, str]) -> None:
    data = published(*served)
    other = made(seed=9)
    put(served[0], *other[:2], ending=".gz")
    with pytest.raises(CouldNotRunError, match="ValueError") as caught:
        data.load(None, "test", 4)
    assert caught.value.code == "E_DATA"
    assert not list((nowhere / "made").iterdir())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_without_a_network(nowhere: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked = []

    def downloader(url: str, *_: object, **__: object) -> None:
        asked.append(url)
        raise ConnectionError("no network")

    real_fetch = fetch.fetch
    plugins.load("data", "cifar10")
    for module in ("snnpipe.train.idx", "snnpipe.train.cifar"):
        monkeypatch.setattr(f"{module}.fetch", lambda n, r: real_fetch(n, r, downloader))
    with pytest.raises(CouldNotRunError) as caught:
        plugins.load("data", name).load(None, "train", 4)
    error = caught.value
    assert (error.code, error.exit_code) == ("E_DATA", 3)
    for part in (f"'{name}'", str(nowhere), "ConnectionError", "--data DIR", "SNNPIPE_DATA"):
        assert part in error.message
    assert asked
    assert all(url.startswith("http") and url.endswith(".gz") for url in asked)


def test_without_an_answer_and_without_pooch(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = fetch.Remote("a.gz", (f"{CLOSED}/a.gz", f"{CLOSED}/b.gz"), "0" * 64)
    with pytest.raises(CouldNotRunError, match=r"a\.gz could not be fetched .*b\.gz: Connection"):
        fetch.fetch("made", [remote])
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(CouldNotRunError, match=r"snnpipe\[train\]") as caught:
        fetch.fetch("made", [remote])
    assert caught.value.code == "E_MISSING"


def test_the_cifar_archive_is_unpacked_once(
    nowhere: Path, served: tuple[Path, str], caplog: pytest.LogCaptureFixture
) -> None:
    part = rows(3)
    archive = served[0] / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in [
            ("cifar-10-batches-bin/test_batch.bin", part.tobytes()),
            ("cifar-10-batches-bin/readme.html", b"text"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    remote = fetch.Remote(archive.name, (f"{served[1]}/{archive.name}",), sha256_of(archive))
    data = replace(plugins.load("data", "cifar10"), archive=remote)
    images, labels = data.load(None, "test", 4)
    assert np.array_equal(images.reshape(3, -1), part[:, 1:])
    assert np.array_equal(labels, part[:, 0])
    folder = nowhere / "cifar10" / "cifar-10-batches-bin"
    assert [path.name for path in folder.iterdir()] == ["test_batch.bin"]
    (folder / "test_batch.bin").write_bytes(part[:2].tobytes())
    assert len(data.load(None, "test", 4)[0]) == 2


def test_every_address_has_a_sha256() -> None:
    for name in ("mnist", "fashion_mnist"):
        digests = plugins.load("data", name).sha256
        assert set(digests) == {*IDX["train"], *IDX["test"]}
        assert all(len(bytes.fromhex(digest)) == 32 for digest in digests.values())
    assert len(bytes.fromhex(plugins.load("data", "cifar10").archive.sha256)) == 32
