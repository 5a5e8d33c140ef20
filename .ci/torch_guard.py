"""Stops before pip pulls a CUDA build of torch, several GB, onto a machine without a GPU.

Usage: torch_guard.py REQUIREMENT [pip options]. ALLOW_CUDA=1 goes on regardless.
"""

import json
import os
import shutil
import subprocess
import sys

TIMEOUT_S = 120


def main() -> int:
    """Ask pip what it would install; 3 when that is a CUDA build nobody asked for."""
    if os.environ.get("ALLOW_CUDA") == "1" or shutil.which("nvidia-smi"):
        return 0
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
    try:
        answer = subprocess.run(  # noqa: S603 - pip of this interpreter, our own arguments
            [*command, *sys.argv[1:]],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        planned = json.loads(answer.stdout)["install"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        sys.stderr.write(f"note: could not tell which torch would come ({error}); going on\n")
        return 0
    names = [item["metadata"]["name"] for item in planned]
    cuda = [name for name in names if name.startswith("nvidia")]
    if not cuda:
        return 0
    sys.stderr.write(
        f"This would download a CUDA build of torch ({len(cuda)} nvidia packages, several GB), but "
        "there is no GPU here. Give PIPARGS='--index-url ADDRESS' with the CPU address that "
        "PyTorch's install page names, or set ALLOW_CUDA=1.\n"
    )
    return 3


if __name__ == "__main__":
    sys.exit(main())
