"""Lava's real runtime and its published processes, one sample after another: the witness."""

from __future__ import annotations

from ..lava.wired import WiredRuntime

PLUGIN = WiredRuntime("lava_standard", "standard")
