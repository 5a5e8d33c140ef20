"""What can go wrong, said in one sentence, with a stable code and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SnnpipeError(Exception):
    """Base of every error a user may meet.

    ``code`` is stable across versions (``E_SHAPE``); the message is one sentence that says what is
    wrong, where, what was found and what was expected.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class RequestError(SnnpipeError):
    """The request or the input is wrong (exit 2)."""

    exit_code = 2


class CouldNotRunError(SnnpipeError):
    """The request is fine, but a part, data or a place to write is missing here (exit 3)."""

    exit_code = 3


def nearest(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the choice nearest to ``word``, or the empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
