"""What tests of Lava need: the private environment, or a reason to skip."""

from __future__ import annotations

from pathlib import Path

import pytest
from snnpipe.deploy.lava.environment import find_environment
from snnpipe.errors import CouldNotRunError


@pytest.fixture(scope="session")
def lava_python() -> Path:
    """The private interpreter; skips where `snnpipe lava setup` was not run."""
    try:
        return find_environment().interpreter
    except CouldNotRunError as missing:
        pytest.skip(missing.message)
