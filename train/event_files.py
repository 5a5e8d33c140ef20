"""Readers of the file formats of event cameras, from bytes to events.

Each refuses what is not as its format says with RequestError (E_DATA): file, byte, found, expected.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CouldNotRunError, RequestError

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Events:
    """n events in the order of their file, each array (n,): places in pixels from the upper left,
    polarity (1: ON, brighter), microseconds."""

    x: Integers
    y: Integers
    polarity: Integers
    time: Integers

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Events:
        """Those of a mask (n,)."""
        parts = (self.x, self.y, self.polarity, self.time)
        return Events(*(part[chosen] for part in parts))


def content(path: Path) -> bytes:
    """A file's bytes; CouldNotRunError (E_DATA) where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CouldNotRunError("E_DATA", f"cannot read {path}: {error.strerror}") from error


def within(events: Events, size: tuple[int, int], where: str) -> Events:
    """The same events, all on a sensor of ``size`` (H, W)."""
    outside = (events.x >= size[1]) | (events.y >= size[0])
    if outside.any():
        at = int(outside.argmax())
        raise RequestError(
            "E_DATA",
            f"{where}: event {at} is at x = {events.x[at]}, y = {events.y[at]}, expected 0 to "
            f"{size[1] - 1} and 0 to {size[0] - 1}",
        )
    return events


_SHORT = 5
_OVERFLOW_ROW, _OVERFLOW = 240, 1 << 13


def five_bytes(data: bytes, where: str, size: tuple[int, int]) -> Events:
    """Events of the address-event format of N-MNIST (Orchard et al., 2015), no header.

    An event is x, y, then big-endian one bit of polarity (1: ON) and 23 bits of microseconds. A
    row with y = 240 is no event: it and all rows behind it are 2^13 us later than they say.
    """
    if not data or len(data) % _SHORT:
        raise RequestError(
            "E_DATA",
            f"{where}: has {len(data)} bytes, expected a multiple of {_SHORT} (one event) above 0",
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, _SHORT).astype(np.int64)
    late = rows[:, 1] == _OVERFLOW_ROW
    time = ((rows[:, 2] & 127) << 16) + (rows[:, 3] << 8) + rows[:, 4] + np.cumsum(late) * _OVERFLOW
    # A mark stands at no place: it must not be refused for the one it names, nor shift the others.
    x, y = (np.where(late, 0, rows[:, axis]) for axis in (0, 1))
    return within(Events(x, y, rows[:, 2] >> 7, time), size, where)[~late]


def _behind_header(data: bytes, mark: bytes, first: bytes, where: str) -> int:
    """The byte behind the lines that begin with ``mark``; the first line begins with ``first``."""
    if not data.startswith(first):
        raise RequestError(
            "E_DATA", f"{where}: begins with {data[: len(first)]!r}, expected {first!r}"
        )
    at = 0
    while data.startswith(mark, at):
        end = data.find(b"\n", at)
        if end < 0:
            raise RequestError("E_DATA", f"{where}: ends at byte {len(data)}, within its header")
        at = end + 1
    return at


def aedat2(data: bytes, where: str) -> Events:
    """Events of a DVS128 in AEDAT 2.0, jAER's format: text lines that begin with #, then pairs of
    big-endian uint32, address and microseconds.

    Of an address bit 0 is 0 for ON, bits 8 to 14 count x and bits 1 to 7 count y, both from the far
    end: so the authors of MNIST-DVS and CIFAR10-DVS read their own recordings (dat2mat.m), and all
    published results with them. Bit 15 marks a pulse of the synchronisation input, no event.
    """
    at = _behind_header(data, b"#", b"#!AER-DAT2.", where)
    if (len(data) - at) % 8:
        raise RequestError(
            "E_DATA",
            f"{where}: {len(data) - at} bytes from byte {at} on, expected a multiple of 8 (one "
            "event)",
        )
    pairs = np.frombuffer(data, ">u4", offset=at).reshape(-1, 2).astype(np.int64)
    strange = pairs[:, 0] >> 16 != 0
    if strange.any():
        row = int(strange.argmax())
        raise RequestError(
            "E_DATA",
            f"{where}: the address at byte {at + 8 * row} is 0x{pairs[row, 0]:08x}, expected "
            "0x0000ffff or less (a DVS128's)",
        )
    address, time = pairs[pairs[:, 0] >> 15 == 0].T
    return Events(127 - (address >> 8), 127 - (address >> 1 & 127), 1 - (address & 1), time)


_PACKET = struct.Struct("<hh6i")
_POLARITY_TYPE, _POLARITY_SIZE = 1, 8


def aedat3(data: bytes, where: str) -> Events:
    """Polarity events of AEDAT 3.1 (iniVation's specification of the format): text lines that begin
    with #, then packets, all little-endian.

    A packet has a header of 28 bytes (type, source, event size, offset of the time in an event,
    overflows of 31 bits of time, capacity, events, valid events) and its events; those of type 1
    are 32 bits of bit 0 valid, bit 1 polarity, bits 2 to 16 y, bits 17 to 31 x, and 32 of
    microseconds. Other packets and invalid events are passed over.
    """
    at = _behind_header(data, b"#", b"#!AER-DAT3.1", where)
    parts = [np.empty((0, 2), np.int64)]
    while at < len(data):
        if at + _PACKET.size > len(data):
            raise _cut(where, at, _PACKET.size, len(data))
        kind, _, size, _, overflow, _, number, _ = _PACKET.unpack_from(data, at)
        begin = at + _PACKET.size
        if size < 1 or number < 0 or (kind == _POLARITY_TYPE and size != _POLARITY_SIZE):
            raise RequestError(
                "E_DATA",
                f"{where}: the packet at byte {at} has {number} events of type {kind} of {size} "
                f"bytes, expected {_POLARITY_SIZE} for polarity events (type {_POLARITY_TYPE})",
            )
        at = begin + size * number
        if at > len(data):
            raise _cut(where, begin, size * number, len(data))
        if kind == _POLARITY_TYPE:
            rows = np.frombuffer(data, "<u4", 2 * number, begin).reshape(-1, 2).astype(np.int64)
            rows[:, 1] += overflow << 31
            parts.append(rows[rows[:, 0] & 1 == 1])
    word, time = np.concatenate(parts).T
    return Events(word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, time)


def _cut(where: str, at: int, needed: int, length: int) -> RequestError:
    return RequestError(
        "E_DATA",
        f"{where}: {length - at} bytes from byte {at} on, expected {needed}; the file is cut off",
    )
