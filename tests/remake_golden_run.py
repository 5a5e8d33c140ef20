"""Makes tests/golden anew: a small trained run (zipped) and its report, for tests without torch.

    python tests/remake_golden_run.py

Run it when a file format changes on purpose, and read the difference of report.json before you
commit it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from snnpipe import plugins

GOLDEN = Path(__file__).parent / "golden"
IMAGES = 60
SETTINGS = (
    "model.channels=[6,8]",
    "model.strides=[2,2]",
    "train.epochs=6",
    "train.steps=3",
    "witness.samples=8",
)


def snnpipe(*arguments: str | Path) -> None:
    """One command of ours, in this interpreter."""
    subprocess.run([sys.executable, "-m", "snnpipe", *map(str, arguments)], check=True)


def main() -> None:
    """Train, export, verify; keep what tests need."""
    recipe = Path(__file__).parent.parent / "recipes" / "digits.toml"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "golden"
        options = [part for setting in SETTINGS for part in ("--set", setting)]
        snnpipe("train", recipe, "--out", run, *options)
        snnpipe("export", run)
        images, labels = plugins.load("data", "digits").load(None, "test", 4)
        np.save(run / "inputs.npy", images[:IMAGES])
        np.save(run / "labels.npy", labels[:IMAGES])
        named = ("--inputs", run / "inputs.npy", "--labels", run / "labels.npy")
        snnpipe("verify", run, "--on", "onnx,event,loihi", *named)
        report = json.loads((run / "report.json").read_text())
        report["facts"] = {}
        (run / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        GOLDEN.mkdir(exist_ok=True)
        (run / "report.json").replace(GOLDEN / "report.json")
        for name in ("model.safetensors", "report.html"):
            (run / name).unlink()
        with zipfile.ZipFile(GOLDEN / "run.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(path for path in run.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(str(file.relative_to(run)))
                packed.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    main()
