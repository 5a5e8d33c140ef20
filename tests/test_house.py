"""The house keeps its own rules: packages, wheel, file lengths, import time, README."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("network", "hardware", "train", "export", "deploy", "verify")
LONGEST = 420
CHECKOUT = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="needs a checkout, not an installed package"
)

pytestmark = CHECKOUT


def sources() -> list[Path]:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.[pch]*")]
    kept = [p for p in files if p.suffix in {".py", ".cpp", ".hpp"}]
    return kept + sorted(ROOT.glob("*.py"))


def test_every_folder_of_a_room_is_a_listed_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        "snnpipe." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert folders | {"snnpipe"} == set(settings["packages"])


def test_files_have_one_subject() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources()
        if (count := len(path.read_text().splitlines())) > LONGEST
    }
    assert not long


def test_imports_inside_the_package_are_relative() -> None:
    pattern = re.compile(
        r"^\s*(from|import) (snnpipe|network|hardware|train|export|deploy|verify)\b"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.match(line)
    ]
    assert not found


def seconds(statement: str) -> float:
    """Cumulative import time of a statement in a fresh interpreter, the best of three."""

    def once() -> float:
        text = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", statement],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
        return sum(
            int(row[1]) / 1e6
            for row in rows
            if row[2].startswith(" ") and row[2][1] != " " and row[1].strip().isdigit()
        )

    return min(once() for _ in range(3))


def test_the_command_line_costs_little_more_than_click() -> None:
    assert seconds("import snnpipe.cli") < 2.5 * seconds("import click, json, pathlib")


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    tree = tmp_path / "snn-pipe 2"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if not n.split("/")[0].endswith("-info")}
    expected = {
        "snnpipe/" + str(path.relative_to(ROOT))
        for path in sources()
        if path.suffix == ".py" and path.name != "setup.py"
    }
    assert expected <= names
    rest = names - expected
    assert {Path(n).suffix for n in rest} <= {".so", ".toml", ".pyi", ".typed", ".html", ""}
    assert sum(n.endswith(".so") for n in rest) == 2
    assert "snnpipe/py.typed" in rest
    assert any(n.startswith("snnpipe/hardware/chips/") for n in rest)
    assert not [n for n in names if n.startswith(("snnpipe/tests", "snnpipe/build", "tests"))]
    check = subprocess.run(
        [sys.executable, "-c", "import snnpipe.cli, snnpipe.deploy.engine._engine as e, sys;"
         "assert snnpipe.__file__.startswith(sys.path[0]); print(e.build_info())"],
        cwd=tmp_path, env={"PYTHONPATH": str(unzip(wheel, tmp_path / "site")), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stderr


def unzip(wheel: Path, where: Path) -> Path:
    zipfile.ZipFile(wheel).extractall(where)
    return where


def test_the_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^\s*(?:\.venv/bin/)?snnpipe (\w+)", text, flags=re.MULTILINE))
    assert {"train", "export", "verify"} <= commands
    help_text = subprocess.run(
        [sys.executable, "-m", "snnpipe", "--help"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert all(re.search(rf"^  {name}\b", help_text, re.MULTILINE) for name in commands)


def test_the_version_is_said_once() -> None:
    import snnpipe

    cff = (ROOT / "CITATION.cff").read_text()
    assert f"version: {snnpipe.__version__}" in cff
