"""DVS128 Gesture, CIFAR10-DVS and SHD: made files in their published layouts, and wrong ones."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError

CSV = "class,startTime_usec,endTime_usec\n"
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def load(name: str, folder: Path, split: str = "test", steps: int = 3) -> Any:
    return plugins.load("data", name).load(folder, split, steps)


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        load(name, folder)
    assert caught.value.code == "E_DATA"
    return caught.value.message


# --- DVS128 Gesture -------------------------------------------------------------------------------


def trial(folder: Path, user: str, events: list[tuple[int, int, bool, int]], csv: str) -> str:
    """An AEDAT 3.1 file of two packets and its labels; returns the name in the lists."""
    folder.mkdir(parents=True, exist_ok=True)
    body = b""
    for part in (events[:3], events[3:]):
        packed = [struct.pack("<II", x << 17 | y << 2 | on << 1 | 1, t) for x, y, on, t in part]
        header = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, *[len(part)] * 3)
        body += header + b"".join(packed)
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    (folder / f"{user}.aedat").write_bytes(header + body)
    (folder / f"{user}_labels.csv").write_text(CSV + csv)
    return f"{user}.aedat\n"


EVENTS = [
    (5, 6, True, 99), (1, 2, True, 100), (1, 2, True, 110), (3, 4, False, 400), (3, 4, False, 410),
    (127, 0, True, 411), (0, 127, False, 499), (9, 9, True, 500), (8, 8, False, 777),
]  # fmt: skip


@pytest.mark.parametrize("inner", ["dvs128gesture/DvsGesture", "DvsGesture", "."])
def test_gestures(tmp_path: Path, inner: str, caplog: pytest.LogCaptureFixture) -> None:
    """The events from a gesture's begin to below its end, three frames of equally many."""
    folder = tmp_path / inner
    second = trial(folder, "user25_led", EVENTS, "1,777,778\n")
    first = trial(folder, "user24_lab", EVENTS, "11,100,500\n3,500,900\n")
    (folder / "trials_to_test.txt").write_text(f"{first}\n{second}")
    (folder / "trials_to_train.txt").write_text("")
    with caplog.at_level(logging.WARNING):
        found, labels = load("dvs128gesture", tmp_path)
    assert "3 of 288 test samples" in caplog.text
    assert labels.tolist() == [10, 2, 0]
    assert (found.shape, found.dtype) == ((3, 3, 2, 128, 128), np.uint8)
    places = [tuple(map(int, at)) for at in np.argwhere(found[0])]
    assert places == [
        (0, 1, 2, 1), (1, 0, 4, 3), (2, 0, 127, 0), (2, 1, 0, 127),
    ]  # fmt: skip
    assert found[0, 0, 1, 2, 1] == found[0, 1, 0, 4, 3] == 2
    assert [tuple(map(int, at)) for at in np.argwhere(found[1])] == [(0, 1, 9, 9), (1, 0, 8, 8)]
    assert "names no recording" in refusal_of_train(tmp_path)


def refusal_of_train(folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        load("dvs128gesture", folder, "train")
    return caught.value.message


@pytest.mark.parametrize(
    ("events", "csv", "part"),
    [
        (EVENTS, "12,1,2\n", "line 2 is '12,1,2', expected a class from 1 to 11"),
        (EVENTS, "1,100,500\n0,1,2\n", "line 3 is '0,1,2'"),
        (EVENTS, "1,500,500\n", "line 2 is '1,500,500'"),
        (EVENTS, "1,-5,500\n", "line 2 is '1,-5,500'"),
        (EVENTS, "1,5\n", "line 2 is '1,5'"),
        (EVENTS, "1,1000,2000\n", "has no event from 1000 to 2000 us, of which user24_labels.csv"),
        ([*EVENTS, (128, 0, True, 800)], "1,1,2\n", "event 9 is at x = 128, y = 0"),
    ],
)
def test_wrong_gestures(tmp_path: Path, events: Any, csv: str, part: str) -> None:
    (tmp_path / "trials_to_test.txt").write_text(trial(tmp_path, "user24", events, csv))
    message = refusal("dvs128gesture", tmp_path)
    assert part in message
    assert f"{tmp_path}/user24" in message


def test_wrong_label_files(tmp_path: Path) -> None:
    (tmp_path / "trials_to_test.txt").write_text(trial(tmp_path, "user24", EVENTS, ""))
    (tmp_path / "user24_labels.csv").write_text("class;start\n")
    assert "begins with 'class;start', expected 'class,start" in refusal("dvs128gesture", tmp_path)
    (tmp_path / "user24_labels.csv").write_bytes(b"class\xff")
    assert "is not plain text" in refusal("dvs128gesture", tmp_path)
    (tmp_path / "user24.aedat").unlink()
    with pytest.raises(CouldNotRunError, match=r"cannot read .*user24\.aedat"):
        load("dvs128gesture", tmp_path)


# --- CIFAR10-DVS ----------------------------------------------------------------------------------


def recordings(folder: Path, each: int) -> None:
    """Recording n of class c: n + 1 events at the place (c, 100 - n), the last one OFF."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            rows = [
                struct.pack(
                    ">II", (127 - label) << 8 | (127 - (100 - number)) << 1 | (k == number), k
                )
                for k in range(number + 1)
            ]
            path = folder / name / f"cifar10_{name}_{number}.aedat"
            path.write_bytes(b"#!AER-DAT2.0\r\n# comment\r\n" + b"".join(rows))


def test_recordings_of_cifar10(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recordings(tmp_path / "cifar10dvs", 20)
    (tmp_path / "cifar10dvs" / "cat" / "readme.aedat").write_bytes(b"not one of them")
    with caplog.at_level(logging.WARNING):
        parts = {split: load("cifar10dvs", tmp_path, split) for split in ("train", "test")}
    assert "20 of 1000 test samples" in caplog.text
    assert "180 of 9000 train samples" in caplog.text
    numbers = {}
    for split, (found, labels) in parts.items():
        assert found.shape[1:] == (3, 2, 48, 48)
        assert np.bincount(labels).tolist() == [18 if split == "train" else 2] * 10
        sums = found.sum((1, 2, 3, 4), dtype=int) - 1
        assert len(set(labels[:12].tolist())) > 4  # the first ones are a fair sample
        numbers[split] = [sorted(sums[labels == c].tolist()) for c in range(10)]
        for recording, label, number in zip(found, labels.tolist(), sums.tolist(), strict=True):
            y = (100 - number) * 48 // 128
            assert recording[:, 1, y, label * 48 // 128].sum() == number
            assert recording[:, 0, y, label * 48 // 128].sum() == 1
    for trained, tested in zip(numbers["train"], numbers["test"], strict=True):
        assert sorted(trained + tested) == list(range(20))
    assert len({tuple(tested) for tested in numbers["test"]}) > 3
    assert numbers["test"][:3] == [[1, 18], [1, 11], [13, 15]]  # as first drawn


def test_wrong_recordings_of_cifar10(tmp_path: Path) -> None:
    recordings(tmp_path, 3)
    for number in range(3):
        (tmp_path / "ship" / f"cifar10_ship_{number}.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    assert "holds no event" in refusal("cifar10dvs", tmp_path)
    (tmp_path / "ship" / "cifar10_ship_0.aedat").unlink()
    (tmp_path / "ship" / "cifar10_ship_1.aedat").unlink()
    assert "ship: holds 1 files cifar10_ship_<number>.aedat" in refusal("cifar10dvs", tmp_path)


# --- SHD ------------------------------------------------------------------------------------------


def spoken(
    path: Path, times: list[Any], units: list[Any], labels: Any, kind: str = "float16"
) -> None:
    """A file in the published layout: lists of varying length, and what else stands in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, lists, dtype in (("times", times, kind), ("units", units, "uint16")):
            made = file.create_dataset(f"spikes/{name}", (len(lists),), h5py.vlen_dtype(dtype))
            for row, values in enumerate(lists):
                made[row] = np.array(values, dtype)
        file["labels"] = np.array(labels)
        file["extra/speaker"] = np.arange(3)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_spoken_digits(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    times = [[0.0, 0.25, 0.25, 0.5, 1.375, 1.5], [], [0.125] * 20]
    units = [[0, 699, 699, 4, 5, 6], [], [350] * 20]
    spoken(tmp_path / "shd" / "shd_test.h5", times, units, [19, 0, 7], kind)
    with caplog.at_level(logging.WARNING):
        found, labels = load("shd", tmp_path, steps=4)
    assert "3 of 2264 test samples" in caplog.text
    assert labels.tolist() == [19, 0, 7]
    assert (found.shape, found.dtype) == ((3, 4, 1, 1, 700), np.uint8)
    places = {tuple(map(int, at)): int(found[tuple(at)]) for at in np.argwhere(found)}
    assert places == {
        (0, 0, 0, 0, 0): 1,
        (0, 0, 0, 0, 699): 2,
        (0, 1, 0, 0, 4): 1,
        (0, 3, 0, 0, 5): 1,
        (2, 0, 0, 0, 350): 15,
    }


@pytest.mark.parametrize(
    ("times", "units", "labels", "part"),
    [
        ([[0.1]], [[700]], [0], "recording 0: spike 0 is at 0.1 s in channel 700"),
        ([[0.5], [0.5, -0.5]], [[1], [1, 2]], [0, 1], "recording 1: spike 1 is at -0.5 s"),
        ([[0.5, np.nan]], [[1, 2]], [0], "spike 1 is at nan s"),
        ([[0.5, np.inf]], [[1, 2]], [0], "spike 1 is at inf s"),
        ([[0.5]], [[1, 2]], [0], "recording 0 has 1 times of float32 and 2 units of uint16"),
        ([[0.5]], [[1]], [20], "its labels are int64 from 20 to 20, expected whole numbers"),
        ([[0.5]], [[1]], [-1], "its labels are int64 from -1 to -1"),
        ([[0.5]], [[1]], [0.5], "its labels are float64"),
        ([[0.5]], [[1]], [0, 1], "1 lists of times, 1 of units and 2 labels"),
        ([], [], np.zeros(0, int), "0 lists of times"),
    ],
)
def test_wrong_spoken_digits(
    tmp_path: Path, times: list[Any], units: list[Any], labels: Any, part: str
) -> None:
    spoken(tmp_path / "shd_test.h5", times, units, labels, "float32")
    message = refusal("shd", tmp_path)
    assert part in message.replace("0.10000000149011612", "0.1")
    assert f"{tmp_path}/shd_test.h5" in message


def test_hdf5_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "shd_test.h5"
    path.write_bytes(b"no HDF5")
    assert "not a readable HDF5 file" in refusal("shd", tmp_path)
    spoken(path, [[0.5]], [[1]], [0])
    with h5py.File(path, "a") as file:
        del file["spikes/units"]
        file["spikes/units"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/spikes/units")
    assert "lacks 'spikes/units'" in refusal("shd", tmp_path)
    with h5py.File(path, "a") as file:
        del file["spikes"]
        file["spikes"] = h5py.SoftLink("/extra")
    assert "lacks 'spikes/times'" in refusal("shd", tmp_path)
    with h5py.File(path, "a") as file:
        del file["spikes"]
        file["spikes/times/inner"] = 1
    assert "'spikes/times' is no list" in refusal("shd", tmp_path)
