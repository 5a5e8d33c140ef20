"""Damaged files, thousands of them: a RequestError or a network, and nothing else.

By hand: PYTHONPATH=tests python tests/fuzz_nir.py FOLDER FIRST COUNT [CORPUS]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from corpus import corpus

PROGRAM = Path(__file__).resolve().parents[1] / "fuzz_nir.py"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's /proc"
)


def _lines(folder: Path, first: int, count: int, *real: Path) -> list[str]:
    """What became of each file; a file that breaks the rule ends the child, and the test."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(first), str(count), *map(str, real)],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    notes = [line for line in done.stderr.splitlines() if f"{folder}/" not in line]
    assert done.returncode == 0, "\n".join([*lines[-2:], *notes[-20:]])
    assert len(lines) == count
    return lines


def _codes(lines: list[str]) -> Counter[str]:
    return Counter(line.split()[-1] for line in lines)


def test_damaged_files_end_well_and_always_the_same(tmp_path: Path) -> None:
    lines = _lines(tmp_path, 0, 120)
    codes = _codes(lines)
    assert codes["run"] >= 5
    assert len(codes) >= 10
    assert _lines(tmp_path, 100, 20) == lines[100:]


@pytest.mark.slow
def test_two_thousand_damaged_files_real_ones_among_them(tmp_path: Path) -> None:
    codes = _codes(_lines(tmp_path, 1000, 2000, corpus()))
    assert codes["run"] >= 100
    expected = {"FORMAT", "LINK", "LIMIT", "TYPE", "PARAM", "NAME", "DTYPE", "SHAPE", "VALUE"}
    expected |= {"EDGES", "CYCLE", "CONTRACT", "SEMANTICS", "NO_CONTRACT", "UNSUPPORTED"}
    assert {f"E_{name}" for name in expected} <= codes.keys()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('a bug')", "a bug"),
        ("raise RequestError('E_X', f'{path}: two\\nlines')", "not one short line"),
        ("import warnings; warnings.warn('odd')", "odd"),
        ("bytearray(2**31)", "MemoryError"),
        ("[0 for _ in iter(int, 1)]", ""),
    ],
)
def test_a_reader_that_breaks_the_rule_would_be_seen(body: str, said: str, tmp_path: Path) -> None:
    program = (
        "import sys, fuzz_nir\nfrom pathlib import Path\nfrom snnpipe.errors import RequestError\n"
        f"def broken(path, semantics):\n    {body}\n"
        "fuzz_nir.read_network = broken\nfuzz_nir.main(Path(sys.argv[1]), 0, 5, None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
