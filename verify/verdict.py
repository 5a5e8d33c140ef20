"""Verdicts: PASSED, FAILED or COULD_NOT_RUN, one sentence each, and how strong a claim is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What a check came to."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    COULD_NOT_RUN = "COULD_NOT_RUN"


class Strength(StrEnum):
    """How an arrow of the chain was checked."""

    PROVEN = "proven"
    """Compared bit for bit where equality is decidable: exact sums, or integers."""
    REPLAYED = "certified by replay"
    """Every decision judged by itself against exact arithmetic, with a proven bound on what
    rounding can do in any order of summation; what came out holds for these samples."""
    MEASURED = "measured"
    """Judged on these samples within a tolerance: nothing is proven."""
    NOT_CLAIMED = "not claimed"
    """The two differ by design; the difference is counted."""


@dataclass(frozen=True)
class Verdict:
    """An outcome and its one sentence."""

    outcome: Outcome
    sentence: str


def worst(verdicts: Iterable[Verdict]) -> Outcome:
    """FAILED before COULD_NOT_RUN before PASSED."""
    outcomes = {verdict.outcome for verdict in verdicts}
    for outcome in (Outcome.FAILED, Outcome.COULD_NOT_RUN):
        if outcome in outcomes:
            return outcome
    return Outcome.PASSED
