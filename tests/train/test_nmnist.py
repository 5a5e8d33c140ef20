"""N-MNIST: the real recordings, made ones, and everything that can be wrong with either."""

from __future__ import annotations

import io
import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data_files import event, put_recordings
from numpy.typing import NDArray
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError, SnnpipeError
from snnpipe.train.data.nmnist import ARCHIVE, WINDOW

SHAPE = (2, 34, 34)


def load(folder: Path, split: str = "test", steps: int = 3) -> tuple[NDArray, NDArray]:
    return plugins.load("data", "nmnist").load(folder, split, steps)


def one(tmp_path: Path, *rows: bytes, steps: int = 3) -> NDArray[np.uint8]:
    """The frames (T, 2, 34, 34) of a recording made of these rows."""
    put_recordings(tmp_path, {"Test/4/00001.bin": b"".join(rows)})
    images, labels = load(tmp_path, steps=steps)
    assert labels.tolist() == [4]
    return images[0]


def refusal(folder: Path, split: str = "test") -> SnnpipeError:
    with pytest.raises((RequestError, CouldNotRunError)) as caught:
        load(folder, split)
    assert caught.value.code == "E_DATA"
    return caught.value


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("SNNPIPE_DATA")
    if not folder or not (Path(folder) / "nmnist" / ARCHIVE).is_file():
        pytest.skip("SNNPIPE_DATA names no folder with N-MNIST recordings")
    return Path(folder)


# --- the real recordings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "counts", "first", "events"),
    [
        ("train", [50] * 10, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], 2_071_339),
        ("test", [8, 14, 8, 11, 14, 7, 10, 15, 2, 11], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], 383_339),
    ],
)
def test_real_recordings(
    real: Path, split: str, counts: list[int], first: list[int], events: int
) -> None:
    """Labels are MNIST's at the same places; below an event is followed by another route."""
    images, labels = load(real, split, 10)
    assert (images.shape, images.dtype) == ((sum(counts), 10, *SHAPE), np.uint8)
    assert (labels.dtype, labels[:10].tolist()) == (np.int64, first)
    assert np.bincount(labels).tolist() == counts
    assert int(images.sum(dtype=np.int64)) == events
    assert images.max() <= 12


def test_a_real_recording_event_by_event(real: Path) -> None:
    with tarfile.open(real / "nmnist" / ARCHIVE, "r:xz") as tar:
        member = next(m for m in tar if m.name == "Test/7/00001.bin")
        data = tar.extractfile(member).read()
    expected = np.zeros((6, *SHAPE), int)
    for x, y, *bits in zip(*[iter(data)] * 5, strict=True):
        word = int.from_bytes(bytes(bits), "big")
        frame = (word & 0x7FFFFF) // 50_000
        if frame < 6:
            expected[frame, word >> 23, y, x] += 1
    images, labels = load(real, steps=6)
    assert labels[0] == 7
    assert expected.sum() > 1000
    assert np.array_equal(images[0], expected.clip(max=15))


# --- made recordings ------------------------------------------------------------------------------


def test_an_event_lands_in_its_place(tmp_path: Path) -> None:
    frames = one(
        tmp_path,
        event(0, 0, False, 0),
        event(33, 1, True, 99_999),
        event(33, 1, True, 99_998),
        event(2, 33, True, 100_000),
        event(5, 6, False, WINDOW - 1),
    )
    found = {tuple(map(int, at)): int(frames[tuple(at)]) for at in np.argwhere(frames)}
    assert found == {(0, 0, 0, 0): 1, (0, 1, 1, 33): 2, (1, 1, 33, 2): 1, (2, 0, 6, 5): 1}


def test_what_comes_behind_the_window_is_left_out(tmp_path: Path) -> None:
    frames = one(tmp_path, event(1, 1, True, WINDOW), event(1, 1, True, (1 << 23) - 1))
    assert not frames.any()


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_frames_last_equally_long(tmp_path: Path, steps: int) -> None:
    """One event a millisecond: as many in each frame as milliseconds begin in it."""
    frames = one(
        tmp_path, *(event(t % 34, t % 33, True, 1000 * t) for t in range(300)), steps=steps
    )
    begins = np.bincount([t * steps // 300 for t in range(300)], minlength=steps)
    assert frames.sum(axis=(1, 2, 3)).tolist() == begins.tolist()


def test_counts_are_cut_to_the_levels(tmp_path: Path) -> None:
    frames = one(tmp_path, *[event(3, 4, False, 5)] * 15, *[event(3, 5, False, 5)] * 300)
    assert frames[0, 0, 4:6, 3].tolist() == [15, 15]
    assert frames.sum() == 30


def test_overflow_rows_move_all_that_follows(tmp_path: Path) -> None:
    """Two rows with y = 240 add 2^13 us each, from their place on, and are no events."""
    mark = event(200, 240, True, 7)
    rows = (event(1, 1, True, 95_000), mark, event(2, 2, True, 95_000), mark, event(3, 3, True, 9))
    found = [tuple(map(int, at)) for at in np.argwhere(one(tmp_path, *rows))]
    assert found == [(0, 1, 1, 1), (0, 1, 3, 3), (1, 1, 2, 2)]
    late = one(tmp_path, *[mark] * 20, event(4, 4, False, 100_000))  # 20 * 8192 + 100,000 us
    assert [tuple(map(int, at)) for at in np.argwhere(late)] == [(2, 0, 4, 4)]
    gone = one(tmp_path, *[mark] * 30, event(4, 4, False, 100_000))
    assert not gone.any()


def _members() -> dict[str, bytes]:
    return {
        "Train/9/00012.bin": event(1, 0, True, 0),
        "Train/0/00003.bin": event(2, 0, True, 0),
        "Train/0/00110.bin": event(3, 0, True, 0),
        "Test/1/00002.bin": event(4, 0, True, 0),
    }


def _in_archive(folder: Path, members: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / ARCHIVE, "w:xz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("put", [put_recordings, _in_archive])
@pytest.mark.parametrize("inner", ["nmnist", "."])
def test_the_order_is_that_of_the_numbers(
    tmp_path: Path, put, inner: str, caplog: pytest.LogCaptureFixture
) -> None:
    strangers = {"Train/0/readme.bin": b"x", "Train/10/00001.bin": b"x", "Other/1/00001.bin": b"x"}
    put(tmp_path / inner, _members() | strangers)
    with caplog.at_level(logging.WARNING):
        images, labels = load(tmp_path, "train", 2)
    assert labels.tolist() == [0, 9, 0]
    assert np.argwhere(images[:, 0, 1, 0]).tolist() == [[0, 2], [1, 1], [2, 3]]
    assert images.flags.writeable
    assert "3 of 60000 train samples" in caplog.text
    assert load(tmp_path, "test", 2)[1].tolist() == [1]


def test_folders_go_before_the_archive(tmp_path: Path) -> None:
    _in_archive(tmp_path, {"Test/1/00001.bin": event(1, 1, True, 1)})
    assert load(tmp_path)[1].tolist() == [1]
    put_recordings(tmp_path, {"Test/2/00001.bin": event(1, 1, True, 1)})
    assert load(tmp_path)[1].tolist() == [2]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "has 0 bytes, expected a multiple of 5"),
        (event(1, 1, True, 1) + b"\x01\x02", "has 7 bytes, expected a multiple of 5"),
        (event(1, 1, True, 1) + event(34, 33, True, 1), "event 1 is at x = 34, y = 33"),
        (event(0, 34, True, 1), "event 0 is at x = 0, y = 34, expected 0 to 33 and 0 to 33"),
        (event(240, 0, True, 1), "event 0 is at x = 240, y = 0"),
    ],
)
@pytest.mark.parametrize("put", [put_recordings, _in_archive])
def test_wrong_recordings(tmp_path: Path, data: bytes, part: str, put) -> None:
    put(tmp_path, _members() | {"Test/3/00001.bin": data})
    error = refusal(tmp_path)
    assert error.exit_code == 2
    assert part in error.message
    assert f"{tmp_path}/Test/3/00001.bin" in error.message


@pytest.mark.parametrize("damage", ["cut", "flipped", "nonsense"])
def test_a_damaged_archive(tmp_path: Path, damage: str) -> None:
    _in_archive(tmp_path, _members())
    path = tmp_path / ARCHIVE
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data[:] = b"nonsense" * 100
    path.write_bytes(data)
    error = refusal(tmp_path)
    assert error.exit_code == 2
    assert f"{path}: is damaged" in error.message


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "Test" / "3").mkdir(parents=True)
    error = refusal(tmp_path)
    assert error.exit_code == 2
    assert "holds no recording Test/<digit>/<number>.bin" in error.message


def test_a_recording_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "Test" / "3" / "00001.bin").mkdir(parents=True)
    error = refusal(tmp_path)
    assert error.exit_code == 3
    assert f"cannot read {tmp_path}" in error.message


@pytest.mark.parametrize("named", [True, False])
def test_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.delenv("SNNPIPE_DATA", raising=False)
    with pytest.raises(CouldNotRunError) as caught:
        plugins.load("data", "nmnist").load(tmp_path if named else None, "train", 3)
    assert caught.value.code == "E_DATA"
    for part in ("'nmnist'", "the folder Train or", ARCHIVE, "--data", "SNNPIPE_DATA"):
        assert part in caught.value.message
