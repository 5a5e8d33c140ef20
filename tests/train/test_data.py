"""Data sets: the real files, made files, and everything that can be wrong with either."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cifar_rows
import numpy as np
import pytest
from data_files import IDX, idx, made, put, rows
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError, SnnpipeError
from snnpipe.train.idx import read_idx

NAMES = [
    "cifar10", "cifar100", "cifar10dvs", "digits", "dvs128gesture", "fashion_mnist", "imagenet",
    "imagenette", "mnist", "nmnist", "shd",
]  # fmt: skip


def sha256(data: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("SNNPIPE_DATA")
    if not folder or not (Path(folder) / "fashion_mnist").is_dir():
        pytest.skip("SNNPIPE_DATA names no folder with real data")
    return Path(folder)


def refusal(name: str, folder: Path | None, split: str = "test") -> SnnpipeError:
    with pytest.raises((RequestError, CouldNotRunError)) as caught:
        plugins.load("data", name).load(folder, split, 4)
    return caught.value


# --- what each set says of itself -----------------------------------------------------------------


def test_the_sets() -> None:
    assert list(plugins.summaries("data")) == NAMES
    facts = {
        name: (p.name, p.shape, p.classes, p.levels, p.scale, p.coding)
        for name in NAMES
        for p in [plugins.load("data", name)]
    }
    assert facts == {
        "cifar10": ("cifar10", (3, 32, 32), 10, 255, 2**-8, "direct"),
        "cifar100": ("cifar100", (3, 32, 32), 100, 255, 2**-8, "direct"),
        "cifar10dvs": ("cifar10dvs", (2, 48, 48), 10, 255, 1.0, "events"),
        "digits": ("digits", (1, 8, 8), 10, 16, 2**-4, "direct"),
        "dvs128gesture": ("dvs128gesture", (2, 128, 128), 11, 255, 1.0, "events"),
        "fashion_mnist": ("fashion_mnist", (1, 28, 28), 10, 255, 2**-8, "direct"),
        "imagenet": ("imagenet", (3, 224, 224), 1000, 255, 2**-8, "direct"),
        "imagenette": ("imagenette", (3, 160, 160), 10, 255, 2**-8, "direct"),
        "mnist": ("mnist", (1, 28, 28), 10, 255, 2**-8, "direct"),
        "nmnist": ("nmnist", (2, 34, 34), 10, 15, 1.0, "events"),
        "shd": ("shd", (1, 1, 700), 20, 15, 1.0, "events"),
    }


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, snnpipe.train.coding, snnpipe.plugins as p\n"
        f"for name in {NAMES}: p.load('data', name)\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'pooch', 'requests', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


# --- digits ---------------------------------------------------------------------------------------


def test_digits() -> None:
    digits = plugins.load("data", "digits")
    parts = {split: digits.load(None, split, 4) for split in ("train", "test")}
    for (images, labels), count in zip(parts.values(), (1347, 450), strict=True):
        assert (images.shape, images.dtype) == ((count, 1, 8, 8), np.uint8)
        assert (labels.shape, labels.dtype) == ((count,), np.int64)
        assert (images.min(), images.max()) == (0, 16)
        assert images.flags.writeable
    counts = [np.bincount(labels).tolist() for _, labels in parts.values()]
    # The whole is the test part of UCI's optdigits, whose class counts are published.
    whole = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert [a + b for a, b in zip(*counts, strict=True)] == whole
    assert counts[1] == [round(n / 4) for n in whole]
    pictures = [{image.tobytes() for image in images} for images, _ in parts.values()]
    assert not pictures[0] & pictures[1]


def test_digits_are_split_the_same_for_ever() -> None:
    """Digests of the split as first drawn; another numpy or scikit-learn must draw it again."""
    digits = plugins.load("data", "digits")
    found = {
        split: tuple(sha256(array)[:16] for array in digits.load(Path("/ignored"), split, 4))
        for split in ("train", "test")
    }
    assert found == {
        "train": ("0e427368890460eb", "03cb8417d97aaf0f"),
        "test": ("afe9bbd9a0beee95", "3ff1b1c2a0cd1ae5"),
    }


def test_digits_agree_with_their_source() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    source = {
        image.astype(np.uint8).tobytes(): label
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for split in ("train", "test"):
        images, labels = plugins.load("data", "digits").load(None, split, 4)
        assert [source[image.tobytes()] for image in images] == labels.tolist()


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    error = refusal("digits", None)
    assert (error.code, error.exit_code) == ("E_MISSING", 3)
    assert "snnpipe[train]" in error.message


# --- the idx family -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split", "counts", "first", "mean"),
    [
        ("fashion_mnist", "train", [6000] * 10, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], 0.286041),
        ("fashion_mnist", "test", [1000] * 10, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7], 0.286849),
        (
            "mnist",
            "train",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
            0.130660,
        ),
    ],
)
def test_real_idx_files(
    real: Path, name: str, split: str, counts: list[int], first: list[int], mean: float
) -> None:
    """Class counts, first labels and mean as published or counted for the complete sets."""
    images, labels = plugins.load("data", name).load(real, split, 4)
    assert (images.shape, images.dtype) == ((sum(counts), 1, 28, 28), np.uint8)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == counts
    assert labels[:10].tolist() == first
    assert round(float(images.mean()) / 255, 6) == mean


def test_real_files_are_those_that_would_be_fetched(real: Path) -> None:
    """MNIST's train images are left out: a copy with another gzip time stamp is about."""
    for name in ("mnist", "fashion_mnist"):
        for file, digest in plugins.load("data", name).sha256.items():
            path = real / name / f"{file}.gz"
            if path.is_file() and (name, file) != ("mnist", IDX["train"][0]):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_mnist_train_images_with_the_first_publishers_header(real: Path) -> None:
    """The published bytes are the same deflate stream under the header of 1996-11-18 15:36:26."""
    data = bytearray((real / "mnist" / f"{IDX['train'][0]}.gz").read_bytes())
    data[4:8] = struct.pack("<I", 848331386)
    data[10:33] = b"train-images.idx3-ubyte"
    digest = hashlib.sha256(data).hexdigest()
    assert digest == plugins.load("data", "mnist").sha256[IDX["train"][0]]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("inner", ["mnist", "."])
@pytest.mark.parametrize("split", ["train", "test"])
def test_made_idx_files(tmp_path: Path, ending: str, inner: str, split: str) -> None:
    image_file, label_file, images, labels = made()
    put(tmp_path / inner, image_file, label_file, split, ending)
    found = plugins.load("data", "mnist").load(tmp_path, split, 4)
    assert np.array_equal(found[0], images[:, None])
    assert np.array_equal(found[1], labels)
    assert (found[0].dtype, found[1].dtype) == (np.uint8, np.int64)
    assert found[0].flags.writeable


def test_plain_file_goes_before_a_gzipped_one(tmp_path: Path) -> None:
    put(tmp_path, *made(count=2, seed=4)[:2], ending=".gz")
    image_file, label_file, images, _ = made(count=3, seed=5)
    put(tmp_path, image_file, label_file)
    found, _ = plugins.load("data", "mnist").load(tmp_path, "test", 4)
    assert np.array_equal(found[:, 0], images)


def test_the_folder_named_goes_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, place in enumerate(("named", "variable")):
        put(tmp_path / place / "mnist", *made(count=2 + number)[:2])
    monkeypatch.setenv("SNNPIPE_DATA", str(tmp_path / "variable"))
    mnist = plugins.load("data", "mnist")
    assert len(mnist.load(tmp_path / "named", "test", 4)[0]) == 2
    assert len(mnist.load(None, "test", 4)[0]) == 3


def test_a_folder_of_its_own_name_goes_before_loose_files(tmp_path: Path) -> None:
    put(tmp_path, *made(count=2)[:2])
    put(tmp_path / "mnist", *made(count=3)[:2])
    assert len(plugins.load("data", "mnist").load(tmp_path, "test", 4)[0]) == 3


IMAGES, LABELS, _, _ = made()


@pytest.mark.parametrize(
    ("images", "labels", "parts"),
    [
        (b"", LABELS, ["magic number is 0x,", "0x00000803"]),
        (LABELS, LABELS, ["magic number is 0x00000801", "0x00000803", "t10k-images"]),
        (IMAGES, IMAGES, ["magic number is 0x00000803", "0x00000801", "t10k-labels"]),
        (idx(0xD03, (5, 28, 28), IMAGES[16:]), LABELS, ["magic number is 0x00000d03"]),
        (IMAGES[:14], LABELS, ["ends within its header"]),
        (idx(0x803, (5, 32, 28), IMAGES[16:]), LABELS, ["items are (32, 28), expected (28, 28)"]),
        (IMAGES[:-1], LABELS, ["promises 3920 bytes", "only 3919"]),
        (IMAGES + b"x", LABELS, ["promises 3920 bytes", "there are more"]),
        (idx(0x803, (2**32 - 1, 28, 28), IMAGES[16:]), LABELS, ["promises 3367254359", "can hold"]),
        (IMAGES, idx(0x801, (4,), LABELS[8:12]), ["5 images", "4 labels"]),
        (idx(0x803, (0, 28, 28), b""), idx(0x801, (0,), b""), ["0 images", "at least one"]),
        (IMAGES, idx(0x801, (5,), bytes((1, 2, 9, 10, 3))), ["label 3 is 10", "0 to 9"]),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_wrong_idx_files(
    tmp_path: Path, images: bytes, labels: bytes, parts: list[str], ending: str
) -> None:
    put(tmp_path, images, labels, ending=ending)
    error = refusal("fashion_mnist", tmp_path)
    assert (error.code, error.exit_code) == ("E_DATA", 2)
    for part in [*parts, str(tmp_path)]:
        assert part in error.message


@pytest.mark.parametrize("damage", ["cut", "flipped", "header"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    put(tmp_path, IMAGES, LABELS, ending=".gz")
    path = tmp_path / f"{IDX['test'][0]}.gz"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data[2] = 7  # an unknown compression method
    path.write_bytes(data)
    error = refusal("mnist", tmp_path)
    assert (error.code, error.exit_code) == ("E_DATA", 2)
    assert f"{path}: " in error.message


def test_idx_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CouldNotRunError, match="No such file") as caught:
        read_idx(tmp_path / "none", ())
    assert caught.value.code == "E_DATA"


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, IMAGES, LABELS)
    (tmp_path / IDX["test"][1]).unlink()
    error = refusal("mnist", tmp_path)
    assert (error.code, error.exit_code) == ("E_DATA", 3)
    assert "lacks t10k-labels-idx1-ubyte" in error.message
    assert str(tmp_path) in error.message


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("by", ["folder", "variable"])
def test_named_folder_without_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    """No download then: the user has said where to look."""
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: pytest.fail("it fetches"))
    monkeypatch.setenv("SNNPIPE_DATA", str(tmp_path / by))
    error = refusal(name, tmp_path / by if by == "folder" else None, "train")
    assert (error.code, error.exit_code) == ("E_DATA", 3)
    for part in (f"'{name}'", "was not found in", str(tmp_path / by), "--data", "SNNPIPE_DATA"):
        assert part in error.message


# --- CIFAR-10 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "."])
def test_made_cifar_rows(tmp_path: Path, inner: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / inner
    folder.mkdir(parents=True, exist_ok=True)
    parts = {number: rows(number, seed=number) for number in (1, 2, 5)}
    for number, part in parts.items():
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    with caplog.at_level(logging.WARNING):
        images, labels = plugins.load("data", "cifar10").load(tmp_path, "train", 4)
    whole = np.concatenate(list(parts.values()))
    assert (images.shape, images.dtype, labels.dtype) == ((8, 3, 32, 32), np.uint8, np.int64)
    assert np.array_equal(labels, whole[:, 0])
    for channel, row, column in [(0, 0, 0), (1, 0, 31), (2, 31, 7)]:
        at = 1 + channel * 1024 + row * 32 + column
        assert np.array_equal(images[:, channel, row, column], whole[:, at])
    assert "8 of 50000 train samples" in caplog.text
    assert refusal("cifar10", tmp_path, "test").exit_code == 3


def test_a_whole_cifar_file_needs_no_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(10_000 * 3073))
    with caplog.at_level(logging.WARNING):
        images, _ = plugins.load("data", "cifar10").load(tmp_path, "test", 4)
    assert len(images) == 10_000
    assert not caplog.records


def test_real_cifar_images(real: Path, tmp_path: Path) -> None:
    """The first 4,000 and 750 rows, known by digests; see the sheets' own list of sha256."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    sheets = real / "cifar10"
    if not (sheets / "train-labels-idx1-ubyte").is_file():
        pytest.skip(f"no CIFAR-10 sheets in {sheets}")
    assert sha256(cifar_rows.images_and_labels(sheets, "train")[0]) == (
        "bac45b45504ed1289a3f437be4bfbefece248abbc094a428a0b4dfab00e776ae"
    )
    assert sha256(cifar_rows.images_and_labels(sheets, "test")[0]) == (
        "27752c67bc7a4caef828f5ce6c85bb506cddf77360c8b259b6d1f85bcf53a9bd"
    )
    folder = cifar_rows.write_binary_version(sheets, tmp_path)
    assert sha256(np.fromfile(folder / "data_batch_1.bin", np.uint8)) == (
        "0993cf8b8e43bc207603aef9787006995746513f5e3fa5a52e06d1b069926330"
    )
    cifar10 = plugins.load("data", "cifar10")
    images, labels = cifar10.load(tmp_path, "train", 4)
    assert images.shape == (4000, 3, 32, 32)
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(labels).tolist() == [396, 366, 420, 384, 422, 393, 414, 385, 407, 413]
    assert images[0, :, 0, 0].tolist() == [59, 62, 63]
    means = (images.mean(axis=(0, 2, 3)) / 255).round(4)
    assert means.tolist() == [0.4916, 0.4818, 0.4447]
    images, labels = cifar10.load(tmp_path, "test", 4)
    assert images.shape == (750, 3, 32, 32)
    assert labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert images[0, :, 0, 0].tolist() == [158, 112, 49]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "has 0 bytes, expected a multiple of 3073"),
        (bytes(3072), "has 3072 bytes, expected a multiple of 3073"),
        (bytes(3073) + b"\x0a" + bytes(3072), "the label of row 1 is 10, expected 0 to 9"),
    ],
)
def test_wrong_cifar_files(tmp_path: Path, data: bytes, part: str) -> None:
    (tmp_path / "test_batch.bin").write_bytes(data)
    error = refusal("cifar10", tmp_path)
    assert (error.code, error.exit_code) == ("E_DATA", 2)
    assert part in error.message
    assert "test_batch.bin" in error.message


# --- CIFAR-100 ------------------------------------------------------------------------------------


def test_made_cifar100_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fine label is the class; the coarse one before it is not."""
    fine = rows(6)
    fine[:, 0] = [99, 0, 42, 7, 19, 20]
    coarse = np.array([[3], [19], [0], [1], [2], [255]], np.uint8)
    (tmp_path / "cifar-100-binary").mkdir()
    file = tmp_path / "cifar-100-binary" / "test.bin"
    file.write_bytes(np.concatenate([coarse, fine], 1).tobytes())
    with caplog.at_level(logging.WARNING):
        images, labels = plugins.load("data", "cifar100").load(tmp_path, "test", 4)
    assert labels.tolist() == [99, 0, 42, 7, 19, 20]
    assert np.array_equal(images.reshape(6, -1), fine[:, 1:])
    assert "6 of 10000 test samples" in caplog.text
    file.write_bytes(np.concatenate([coarse, fine], 1).tobytes()[:-1])
    assert "has 18443 bytes, expected a multiple of 3074" in refusal("cifar100", tmp_path).message
    file.write_bytes(b"\x01\x64" + bytes(3072))
    assert "the label of row 0 is 100, expected 0 to 99" in refusal("cifar100", tmp_path).message


# --- sets that nobody fetches for the user --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("dvs128gesture", ["trials_to_test.txt", "research.ibm.com"]),
        ("cifar10dvs", ["folders airplane to truck", "figshare.com"]),
        ("shd", ["shd_test.h5", "zenkelab.org"]),
        ("imagenet", ["the folder val", "image-net.org"]),
    ],
)
def test_where_the_others_are_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parts: list[str]
) -> None:
    monkeypatch.delenv("SNNPIPE_DATA", raising=False)
    error = refusal(name, None)
    assert (error.code, error.exit_code) == ("E_DATA", 3)
    for part in (*parts, f"'{name}'", "--data", "SNNPIPE_DATA"):
        assert part in error.message
    named = refusal(name, tmp_path)
    assert (named.code, named.exit_code) == ("E_DATA", 3)
    assert parts[0] in named.message
