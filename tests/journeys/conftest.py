"""Commands as a user types them, and one small trained run for all journeys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "recipes" / "digits.toml"
QUICK = ("--set", "train.limit=400", "--set", "train.epochs=4", "--set", "model.channels=[6,8,12]")


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line of an error; there must be no second and no traceback."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert "Traceback" not in self.err
        assert len(lines) == 1, self.err
        return lines[0]


Command = Callable[..., Done]


@pytest.fixture(scope="session")
def snnpipe() -> Command:
    """Run a command of ours in a fresh process: ``snnpipe("train", recipe, cwd=folder)``."""

    def call(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "snnpipe", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, **variables},
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def trained(snnpipe: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on the digits, trained and exported."""
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    folder = tmp_path_factory.mktemp("journey")
    done = snnpipe("train", DIGITS, "--out", "runs/digits", *QUICK, cwd=folder)
    assert done.code == 0, done.err
    done = snnpipe("export", cwd=folder)
    assert done.code == 0, done.err
    return folder
