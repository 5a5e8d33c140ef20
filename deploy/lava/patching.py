"""Changes to installed files that are checked: the old text is there once, or the new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import CouldNotRunError


@dataclass(frozen=True)
class Patch:
    """In ``file``, relative to site-packages, ``old``, which stands there once, becomes ``new``."""

    file: str
    old: str
    new: str


def apply_patch(site: Path, patch: Patch) -> None:
    """Change a file; nothing where it is changed already.

    Raises CouldNotRunError (E_PATCH) where the text is neither.
    """
    path = site / patch.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    there = (text.replace(patch.new, "").count(patch.old), text.count(patch.new))
    if there == (0, 1):
        return
    if there != (1, 0):
        raise CouldNotRunError(
            "E_PATCH",
            f"{path} is not the file that was expected: '{patch.old.splitlines()[0].strip()}' "
            f"stands there {there[0]} times and what replaces it {there[1]} times, expected one "
            "of them once",
        )
    path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
