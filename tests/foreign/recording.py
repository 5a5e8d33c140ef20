"""What the recorders of this folder share: the inputs, and how a recording is kept.

Needs numpy only: the recorders run in environments of other frameworks, without snnpipe.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

STEPS, SAMPLES, NEURONS = 200, 4, 32
LEVEL = 1 / 4
"""Inputs are whole numbers of this, and decays have few bits, so that no recorded decision hangs on
the order in which an implementation rounds."""


def inputs() -> np.ndarray:
    """Inputs (T, B, N), float32: random ones, a level for each neuron, ties, and rare spikes."""
    rng = np.random.default_rng(9)
    x = np.zeros((STEPS, SAMPLES, NEURONS), np.float32)
    x[:, 0] = rng.integers(-3, 6, (STEPS, NEURONS))
    x[:, 1] = np.arange(NEURONS) % 9
    x[:, 2] = 1
    x[:, 3] = 7 * (rng.random((STEPS, NEURONS)) < 0.2)
    return x * np.float32(LEVEL)


def save(path: Path, packages: tuple[str, ...], x: np.ndarray, cases: Mapping[str, Any]) -> None:
    """Keep the inputs, and per case its NIR file (a path) and its spikes (T, B, N), in one file."""
    arrays: dict[str, np.ndarray] = {"levels": (x / LEVEL).astype(np.int16)}
    for name, (file, spikes) in cases.items():
        arrays[f"{name}.nir"] = np.frombuffer(file.read_bytes(), np.uint8)
        arrays[f"{name}.spikes"] = np.packbits(spikes != 0, axis=-1, bitorder="little")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    arrays["versions"] = np.array(json.dumps(versions))
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.write_bytes(content.getvalue())
