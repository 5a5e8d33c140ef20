"""Formats of event cameras: real clips, made files byte by byte, and what is wrong with either."""

from __future__ import annotations

import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data_files import event
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.train.event_files import (
    Events,
    aedat2,
    aedat3,
    content,
    five_bytes,
)
from snnpipe.train.event_frames import by_count, by_duration, frames

CLIPS = {
    "01.bin": (63471, 3955662, 5423391, 32164, 28, 1449996, (49, 82, 0)),
    "02.bin": (84260, 3591788, 5154890, 43472, 45, 1449969, (42, 49, 0)),
    "03.bin": (113063, 10218079, 6630164, 55396, 2, 1449994, (60, 51, 0)),
    "04.bin": (151879, 6778651, 10571877, 77731, 3, 1449993, (67, 39, 0)),
    "05.bin": (181179, 7036057, 14275208, 93262, 8, 1449984, (78, 126, 0)),
    "06.bin": (124244, 11014078, 8554194, 61259, 6, 1449995, (119, 113, 0)),
    "07.bin": (159617, 12626342, 11078408, 77603, 10, 1449997, (65, 111, 0)),
    "08.bin": (101288, 6478432, 9109366, 50762, 10, 1449984, (67, 94, 1)),
    "09.bin": (141773, 9425396, 13256368, 70469, 25, 1449993, (97, 87, 1)),
    "10.bin": (85936, 4283569, 8998279, 47461, 24, 1449982, (54, 116, 1)),
}
"""Events, sums of x, y and polarity, first and last time, first event: summed byte by byte with
Python integers, without the reader."""


def rows(events: Events) -> list[tuple[int, ...]]:
    parts = (events.x, events.y, events.polarity, events.time)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("SNNPIPE_DATA")
    if not folder or not (Path(folder) / "events").is_dir():
        pytest.skip("SNNPIPE_DATA names no folder with event files")
    return Path(folder) / "events"


# --- real files -----------------------------------------------------------------------------------


def test_real_clips_of_a_dvs128(real: Path) -> None:
    found = {}
    with tarfile.open(real / "dvs128_128x128.tar.xz", "r:xz") as tar:
        for member in tar:
            if member.isreg():
                data = tar.extractfile(member).read()
                events = five_bytes(data, member.name, (128, 128))
                x, y, on, time = (
                    int(part.sum()) for part in (events.x, events.y, events.polarity, events.time)
                )
                assert time > 0
                assert (np.diff(events.time) >= 0).all()
                first = rows(events)[0]
                last = int(events.time[-1])
                found[member.name] = (len(events), x, y, on, first[3], last, first[:3])
                counts = frames(events, by_count(events, 16), 16, (2, 128, 128), 255)
                assert int(counts.sum(dtype=np.int64)) == len(events)
                smaller = frames(events, by_count(events, 10), 10, (2, 48, 48), 255, (128, 128))
                assert int(smaller.sum(dtype=np.int64)) == len(events)
    assert found == CLIPS


# --- AEDAT 2 --------------------------------------------------------------------------------------

HEADER_2 = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"


def address_2(x: int, y: int, on: bool) -> int:
    """As the camera numbers the pixel that readers place at (x, y)."""
    return (127 - x) << 8 | (127 - y) << 1 | (not on)


def test_aedat2() -> None:
    places = [(0, 0, True, 5), (127, 3, False, 70_000), (64, 126, True, 2**31 + 9)]
    body = b"".join(struct.pack(">II", address_2(x, y, on), t) for x, y, on, t in places)
    pulse = struct.pack(">II", 0x8000 | 7, 6)
    found = aedat2(HEADER_2 + body[:8] + pulse + body[8:], "f")
    assert rows(found) == [(x, y, int(on), t) for x, y, on, t in places]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"#!AER-DAT3.1\r\n", "begins with b'#!AER-DAT3.', expected b'#!AER-DAT2.'"),
        (b"", "begins with b''"),
        (b"#!AER-DAT2.0", "ends at byte 12, within its header"),
        (HEADER_2 + bytes(12), f"12 bytes from byte {len(HEADER_2)} on, expected a multiple of 8"),
        (
            HEADER_2 + bytes(8) + struct.pack(">II", 0x10007, 1),
            f"address at byte {len(HEADER_2) + 8} is 0x00010007",
        ),
    ],
)
def test_wrong_aedat2(data: bytes, part: str) -> None:
    with pytest.raises(RequestError) as caught:
        aedat2(data, "place/f.aedat")
    assert caught.value.code == "E_DATA"
    assert part in caught.value.message
    assert "place/f.aedat" in caught.value.message


# --- AEDAT 3.1 ------------------------------------------------------------------------------------

HEADER_3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def packet(body: bytes, kind: int = 1, size: int = 8, overflow: int = 0) -> bytes:
    number = len(body) // size
    return struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, number, number, number) + body


def polarity_3(x: int, y: int, on: bool, time: int, valid: bool = True) -> bytes:
    return struct.pack("<II", x << 17 | y << 2 | on << 1 | valid, time)


def test_aedat3() -> None:
    data = (
        HEADER_3
        + packet(polarity_3(3, 100, True, 7) + polarity_3(1, 1, True, 8, valid=False))
        + packet(b"anything!" * 3, kind=3, size=9)
        + packet(b"")
        + packet(polarity_3(127, 0, False, 2**31 - 1) + polarity_3(0, 127, True, 1), overflow=2)
    )
    assert rows(aedat3(data, "f")) == [
        (3, 100, 1, 7),
        (127, 0, 0, 3 * 2**31 - 1),
        (0, 127, 1, 2**32 + 1),
    ]
    assert len(aedat3(HEADER_3, "f")) == 0


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (HEADER_2, "expected b'#!AER-DAT3.1'"),
        (HEADER_3 + bytes(27), f"27 bytes from byte {len(HEADER_3)} on, expected 28"),
        (
            HEADER_3 + packet(polarity_3(1, 1, True, 1))[:-1],
            f"7 bytes from byte {len(HEADER_3) + 28} on, expected 8; the file is cut off",
        ),
        (HEADER_3 + packet(bytes(16), size=16), "1 events of type 1 of 16 bytes, expected 8"),
        (
            HEADER_3 + struct.pack("<hhiiiiii", 2, 1, 0, 4, 0, 1, 1, 1),
            f"the packet at byte {len(HEADER_3)} has 1 events of type 2 of 0 bytes",
        ),
        (HEADER_3 + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, -1, 1), "has -1 events"),
    ],
)
def test_wrong_aedat3(data: bytes, part: str) -> None:
    with pytest.raises(RequestError) as caught:
        aedat3(data, "place/f.aedat")
    assert caught.value.code == "E_DATA"
    assert part in caught.value.message
    assert "place/f.aedat" in caught.value.message


# --- the others -----------------------------------------------------------------------------------


def test_marks_of_late_rows_are_no_events() -> None:
    """What an event is called by does not shift where a mark goes before it."""
    data = event(1, 2, True, 3) + event(200, 240, True, 7) + event(9, 2, False, 4)
    assert rows(five_bytes(data, "f", (10, 10))) == [(1, 2, 1, 3), (9, 2, 0, 8192 + 4)]
    with pytest.raises(RequestError, match="event 2 is at x = 9"):
        five_bytes(data, "f", (10, 9))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CouldNotRunError, match="No such file") as caught:
        content(tmp_path / "none")
    assert caught.value.code == "E_DATA"


# --- frames ---------------------------------------------------------------------------------------


def made(count: int, seed: int = 2) -> Events:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(1000, 9000, count))
    return Events(*(rng.integers(0, n, count) for n in (12, 9, 2)), time)


def counted(events: Events, frame: list[int], steps: int, shape: tuple[int, ...]) -> np.ndarray:
    """The same, an event at a time."""
    found = np.zeros((steps, 2, *shape), int)
    for (x, y, on, _), step in zip(rows(events), frame, strict=True):
        if 0 <= step < steps:
            found[step, on, y * shape[0] // 9, x * shape[1] // 12] += 1
    return found


@pytest.mark.parametrize(("count", "steps"), [(100, 7), (21, 7), (6, 7), (1, 3)])
def test_frames_of_equal_count(count: int, steps: int) -> None:
    events = made(count)
    each = count // steps or 1
    ends = [each * (step + 1) for step in range(steps - 1)]
    expected = [sum(at >= end for end in ends) for at in range(count)]
    frame = by_count(events, steps)
    assert frame.tolist() == expected
    found = frames(events, frame, steps, (2, 9, 12), 255)
    assert np.array_equal(found, counted(events, expected, steps, (9, 12)))
    if count >= steps:
        sizes = found.sum((1, 2, 3)).tolist()
        assert sizes == [each] * (steps - 1) + [count - each * (steps - 1)]


def test_frames_of_equal_duration() -> None:
    events = made(500)
    frame = by_duration(events, 2000, 8000, 4)
    expected = [(t - 2000) // 1500 for t in events.time.tolist()]
    assert frame.tolist() == expected
    assert (min(expected), max(expected)) == (-1, 4)
    found = frames(events, frame, 4, (2, 9, 12), 255)
    assert np.array_equal(found, counted(events, expected, 4, (9, 12)))


def test_smaller_frames_are_sums() -> None:
    events = made(2000)
    frame = by_count(events, 3)
    found = frames(events, frame, 3, (2, 4, 5), 255, (9, 12))
    assert np.array_equal(found, counted(events, frame.tolist(), 3, (4, 5)))
    assert int(found.sum(dtype=int)) == 2000
    halves = frames(events, frame, 3, (2, 9, 6), 255, (9, 12))
    whole = frames(events, frame, 3, (2, 9, 12), 255)
    assert np.array_equal(halves, whole[..., ::2] + whole[..., 1::2])


def test_counts_are_cut_to_the_levels() -> None:
    events = made(5000)
    whole = frames(events, by_count(events, 2), 2, (2, 3, 4), 255, (9, 12))
    cut = frames(events, by_count(events, 2), 2, (2, 3, 4), 100, (9, 12))
    assert whole.max() > 100
    assert np.array_equal(cut, whole.clip(max=100))
    every = np.zeros(5000, np.int64)
    full = frames(Events(every, every, every, every), every, 1, (2, 1, 1), 255)
    assert full.flatten().tolist() == [255, 0]
