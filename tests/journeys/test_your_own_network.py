"""The guide to networks of one's own does what it says, command included."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "your-own-network.md"


@pytest.mark.slow
@pytest.mark.skipif(not GUIDE.is_file(), reason="needs a checkout, not an installed package")
def test_the_guide_to_your_own_network(
    snnpipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    names: dict[str, Any] = {"__name__": "guide"}
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors on a busy machine wait for threads, not for work
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, str(GUIDE), "exec"), names)  # noqa: S102 - our own text
    torch.set_num_threads(threads)
    commands = re.findall(r"^    snnpipe (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["export", "verify"]
    for command in commands:
        done = snnpipe(*command.split(), "--json", cwd=tmp_path)
        assert done.code == 0, done.err
    assert done.json["verdict"] == "PASSED"
    assert done.json["samples"] == len(names["test"][0])
    # The counter-check: a module that changed since is not what was lifted.
    names["model"].bn2.bias.data += 0.5
    changed = names["witness"](names["model"], names["test"], names["digits"].scale, 4, 32)
    assert any(layer.wrong for layer in names["replay"](names["network"], changed))
