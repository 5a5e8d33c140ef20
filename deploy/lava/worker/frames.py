"""Messages between the parent and the worker: a JSON header, then arrays as .npy; no pickle."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

MAGIC = b"SNNPIPE1"
PREFIX = struct.Struct("<8sQQ")
"""Magic, bytes of the header, bytes of the arrays."""
LARGEST = 2**34
"""Bytes of a message that are still believed."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One message. Raises ValueError for a number that JSON has not and an array of objects."""
    text = json.dumps({"header": header, "arrays": list(arrays)}, allow_nan=False).encode()
    body = io.BytesIO()
    for array in arrays.values():
        np.lib.format.write_array(body, np.asarray(array), allow_pickle=False)
    return PREFIX.pack(MAGIC, len(text), body.tell()) + text + body.getvalue()


def decode(read: Callable[[int], bytes]) -> tuple[dict[str, Any], Arrays]:
    """The next message; ``read(n)`` gives exactly n bytes or raises.

    Raises ValueError for what is no message, and what ``read`` raises.
    """
    magic, header_bytes, body_bytes = PREFIX.unpack(read(PREFIX.size))
    if magic != MAGIC or header_bytes + body_bytes > LARGEST:
        raise ValueError(f"no message: it begins with {magic!r}")
    content = json.loads(read(header_bytes))
    body = io.BytesIO(read(body_bytes))
    names = content["arrays"]
    arrays = {name: np.lib.format.read_array(body, allow_pickle=False) for name in names}
    return content["header"], arrays
