"""Records what other frameworks make of the files that snnpipe writes for them.

    SNNPIPE_FOREIGN_A=PYTHON SNNPIPE_FOREIGN_B=PYTHON python tests/foreign/record_readers.py OUT.npz

with snnpipe's own python; A has snntorch and spikingjelly, B has sinabs.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from reader_networks import python_of, read_by, write
from snnpipe.network.graph import graph_hash
from snnpipe.network.graph_file import read_graph

PACKAGES = {
    "snntorch": ("snntorch", "nirtorch", "nir", "torch"),
    "spikingjelly": ("spikingjelly", "nirtorch", "nir", "torch"),
    "sinabs": ("sinabs", "nirtorch", "nir", "torch"),
}


def versions(framework: str) -> dict[str, str]:
    """The packages that took part, by name."""
    code = "import sys, json; from importlib.metadata import version as v; "
    code += "print(json.dumps({n: v(n) for n in sys.argv[1:]}))"
    command = [str(python_of(framework)), "-c", code, *PACKAGES[framework]]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(text)
    return found


def main(out: Path) -> None:
    """Write every case, have it read, keep the outputs with the hash of the file's graph."""
    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for path in folder.glob("*/network.nir"):
            arrays[f"{path.parent.name}:graph"] = np.array(graph_hash(read_graph(path)))
        for framework in PACKAGES:
            for case, outputs in read_by(framework, folder).items():
                arrays[f"{case}:{framework}"] = outputs
    found = {framework: versions(framework) for framework in PACKAGES}
    arrays["versions"] = np.array(json.dumps(found))
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    out.write_bytes(content.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
