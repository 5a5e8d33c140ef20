"""Being asked to stop: by Ctrl-C, or by a system that wants its machine back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Asked:
    """The signal that came, or None as long as none did."""

    by: int | None = None


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """SIGINT and SIGTERM are noted in the block, and delivered after it as ever; a second one acts
    at once. Outside the main thread signals are none of ours."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    # What is ignored stays so: a shell starts its background jobs deaf to Ctrl-C.
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {
        number: handler
        for number, handler in handlers.items()
        if handler not in (None, signal.SIG_IGN)
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        asked.by = number
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        restore()
    if asked.by is not None:
        signal.raise_signal(asked.by)
