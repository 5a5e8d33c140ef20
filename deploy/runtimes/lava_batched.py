"""Lava's real runtime with many samples side by side: its own neurons, our connections."""

from __future__ import annotations

from ..lava.wired import WiredRuntime

PLUGIN = WiredRuntime("lava_batched", "batched")
