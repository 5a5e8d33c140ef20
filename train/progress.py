"""One line on a terminal that says how far the work is; silent anywhere else."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BETWEEN = 0.1
"""Seconds between two looks."""


class Progress:
    """Rewrites one line of stderr while it is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._on = self._stream.isatty()
        self._shown = 0.0

    def show(self, text: str) -> None:
        """Put ``text`` in the place of the line, unless it was rewritten a moment ago."""
        now = time.monotonic()
        if self._on and now - self._shown >= _BETWEEN:
            self._shown = now
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()

    def keep(self, text: str) -> None:
        """Leave ``text`` as a finished line."""
        if self._on:
            self._stream.write(f"\r\x1b[2K{text}\n")
            self._stream.flush()
