"""The event-driven C++ engine."""

from __future__ import annotations

from types import ModuleType

from ...errors import CouldNotRunError

INTERFACE = 3
"""The interface of the extension that this release speaks."""


def load() -> ModuleType:
    """The compiled extension; CouldNotRunError (E_MISSING) when it is not built, or is stale."""
    try:
        from . import _engine
    except ImportError as error:
        raise CouldNotRunError(
            "E_MISSING",
            f"the event engine is not built here ({error}); `pip install .` "
            "builds it where there is a C++17 compiler (`pip install -e .` in a clone)",
        ) from error
    found = getattr(_engine, "INTERFACE", None)
    if found != INTERFACE:
        raise CouldNotRunError(
            "E_MISSING",
            f"the event engine is of another build (interface {found}, expected {INTERFACE}); "
            "install snnpipe again to build it anew",
        )
    return _engine
