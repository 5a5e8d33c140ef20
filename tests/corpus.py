"""Where real NIR files lie, which nobody on the project wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def corpus() -> Path:
    """The folder ``nir_corpus`` beside the data sets; the test is skipped where it is not."""
    data = os.environ.get("SNNPIPE_DATA")
    folder = Path(data).parent / "nir_corpus" if data else None
    if folder is None or not folder.is_dir():
        pytest.skip("the corpus of real NIR files is not here (SNNPIPE_DATA)")
    return folder
