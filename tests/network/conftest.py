"""The good file that tests edit."""

from __future__ import annotations

import pytest
from small_network import small_network
from snnpipe.network.nir_file import write_network


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The small network's file."""
    path = tmp_path_factory.mktemp("good") / "good.nir"
    write_network(small_network(), path)
    return path.read_bytes()
