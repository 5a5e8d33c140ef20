"""Folders of image files, decoded when asked for, by threads that run ahead."""

from __future__ import annotations

import io
import logging
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.train import image_folder
from snnpipe.train.dataset import Lazy, mixed, read
from snnpipe.train.image_folder import ImageFolder, decoded
from snnpipe.train.prefetch import AHEAD, ahead

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

SMALL = ImageFolder(
    name="imagenette",
    classes=3,
    shape=(3, 8, 8),
    resize=10,
    folders={"train": "train", "test": "val"},
    whole={"train": 9, "test": 4},
    inner="small",
    source="nowhere",
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def put(folder: Path, split: str = "val") -> dict[str, np.ndarray]:
    """Three classes with 1, 2 and 1 images of 10x10, PNG so that pixels are kept."""
    made = {}
    for number, name in enumerate(("n2/b.png", "n1/z.PNG", "n3/a.png", "n2/a.png")):
        path = folder / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made[name] = picture(10, 10, number)
        Image.fromarray(made[name]).save(path)
    (folder / split / "readme.txt").write_text("no class")
    (folder / split / "n1" / "notes.txt").write_text("no image")
    return made


@pytest.mark.parametrize("inner", ["imagenette/small", "small", "."])
def test_classes_and_images_in_the_order_of_their_names(
    tmp_path: Path, inner: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = put(tmp_path / inner)
    with caplog.at_level(logging.WARNING):
        images, labels = SMALL.load(tmp_path, "test", 4)
    assert not caplog.records
    assert isinstance(images, Lazy)
    order = mixed(4)
    assert order.tolist() == [2, 3, 1, 0]
    assert (labels.tolist(), labels.dtype) == ([1, 2, 1, 0], np.int64)
    found = read(images)
    some = images[np.array([False, True, False, True])]
    assert np.array_equal(read(some), found[[1, 3]])
    assert np.array_equal(read(some[1:]), found[3:])
    found = found[np.argsort(order)]
    assert (found.shape, found.dtype) == ((4, 3, 8, 8), np.uint8)
    for image, name in zip(found, ["n1/z.PNG", "n2/a.png", "n2/b.png", "n3/a.png"], strict=True):
        assert np.array_equal(image, made[name][1:9, 1:9].transpose(2, 0, 1))
    assert len(images[np.array([2, 0])][:1]) == 1


@pytest.mark.parametrize(("height", "width"), [(20, 30), (45, 15), (8, 9)])
def test_the_middle_of_the_resized_image(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "a.jpg"
    ramp = np.broadcast_to(np.linspace(0, 250, width), (height, width))
    Image.fromarray(ramp.astype(np.uint8)).convert("RGB").save(path, quality=100)
    found = decoded(path, 12, (6, 4))
    assert found.shape == (3, 6, 4)
    new = 12 if width < height else round(width * 12 / height)
    at = (np.arange(4) + (new - 4) // 2 + 0.5) * width / new - 0.5
    assert np.abs(found[0] - at * 250 / (width - 1)).max() < 6
    assert np.ptp(found, axis=0).max() <= 2


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    grey = picture(8, 8)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(decoded(tmp_path / "grey.png", 8, (8, 8)), np.stack([grey] * 3))


@pytest.mark.parametrize("damage", ["cut", "nonsense", "gone"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(40, 40)).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:700])
    elif damage == "nonsense":
        path.write_bytes(b"nonsense" * 50)
    else:
        path.unlink()
    with pytest.raises(RequestError, match="not a readable image") as caught:
        decoded(path, 8, (8, 8))
    assert caught.value.code == "E_DATA"
    assert str(path) in caught.value.message


def test_wrong_folders(tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(RequestError, match="holds 3 folders, expected 1000"):
        plugins.load("data", "imagenet").load(tmp_path, "test", 4)
    with pytest.raises(CouldNotRunError, match="the folder train with a folder of images"):
        SMALL.load(tmp_path, "train", 4)
    (tmp_path / "val" / "n1" / "z.PNG").unlink()
    with pytest.raises(RequestError, match="n1: holds no image"):
        SMALL.load(tmp_path, "test", 4)


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CouldNotRunError, match=r"snnpipe\[images\]") as caught:
        SMALL.load(tmp_path, "test", 4)
    assert caught.value.code == "E_MISSING"
    assert sys.modules["PIL"]


def test_the_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "made", "val")
    cache = tmp_path / "cache"
    cache.mkdir()
    with tarfile.open(cache / "small.tgz", "w:gz") as tar:
        tar.add(tmp_path / "made", "small")
    monkeypatch.delenv("SNNPIPE_DATA", raising=False)
    monkeypatch.setattr(image_folder, "fetch", lambda name, remotes: cache)
    remote = plugins.load("data", "imagenette").archive
    fetched = replace(SMALL, archive=replace(remote, file="small.tgz"))
    images, labels = fetched.load(None, "test", 4)
    (cache / "small.tgz").write_bytes(b"")
    again, _ = fetched.load(None, "test", 4)
    assert np.array_equal(read(images), read(again))
    assert sorted(labels.tolist()) == [0, 1, 1, 2]


# --- reading ahead --------------------------------------------------------------------------------


def counted(count: int, delay: float = 0.0) -> tuple[Lazy, list[int]]:
    """Items (1, 1, 1) of their own number; the list grows as they are read."""
    seen: list[int] = []

    def item(row: int) -> np.ndarray:
        time.sleep(delay * (row % 3))
        seen.append(row)
        return np.full((1, 1, 1), row, np.uint8)

    return Lazy(np.arange(count) + 100, item), seen


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_order_is_that_of_the_batches(threads: int) -> None:
    lazy, seen = counted(30, 0.002)
    order = np.random.default_rng(1).permutation(30)
    batches = [order[at : at + 4] for at in range(0, 30, 4)]
    found = list(ahead(lazy, batches, threads))
    assert [batch.flatten().tolist() for batch in found] == [(b + 100).tolist() for b in batches]
    assert sorted(seen) == list(range(100, 130))


def test_it_runs_ahead_and_no_further() -> None:
    lazy, seen = counted(50)
    batches = ahead(lazy, (np.arange(at, at + 5) for at in range(0, 50, 5)), 3)
    assert seen == []
    next(batches)
    until = time.monotonic() + 5
    while len(seen) < 5 * AHEAD and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(seen) == 5 * AHEAD
    before = threading.active_count()
    batches.close()
    assert threading.active_count() == before - 3


def test_an_error_comes_where_its_batch_is_due(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "val" / "n2" / "b.png").write_bytes(b"damaged")
    images, _ = SMALL.load(tmp_path, "test", 4)
    batches = ahead(images, [np.array([1, 3]), np.array([2]), np.array([0]), np.array([2])], 2)
    assert len(next(batches)) == 2
    assert len(next(batches)) == 1
    with pytest.raises(RequestError, match=r"b\.png: not a readable image"):
        next(batches)
    assert not any(thread.name.startswith("reader") for thread in threading.enumerate())


def test_a_real_codec_is_read_by_many_threads(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(32, 48)).save(buffer, "JPEG")
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for path in paths:
        path.write_bytes(buffer.getvalue())
    lazy = Lazy(np.arange(12), lambda row: decoded(paths[row], 20, (16, 16)))
    (found,) = ahead(lazy, [np.arange(12)], 4)
    assert np.array_equal(found, np.stack([decoded(paths[0], 20, (16, 16))] * 12))
