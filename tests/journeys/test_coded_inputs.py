"""Images coded as spikes go the whole way: all that stand behind training see the same spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe.network.nir_file import read_network
from snnpipe.network.trace import Witness

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("model.channels=[8,16]", "model.strides=[1,2]", "train.epochs=4", "train.steps=5")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "rule"), [("rate", "rate"), ("latency", "bptt")])
def test_from_coded_images_to_a_verdict(snnpipe: Any, tmp_path: Path, code: str, rule: str) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    settings = [*QUICK, f"data.coding={code}", f"rule.name={rule}", "data.crop=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    recipe = ROOT / "recipes" / "digits.toml"
    trained = snnpipe("train", recipe, "--out", "run", *options, cwd=tmp_path)
    assert trained.code == 0, trained.err
    exported = snnpipe("export", "run", cwd=tmp_path)
    assert exported.code == 0, exported.err
    contract = read_network(tmp_path / "run" / "network.nir").contract
    facts = (contract.input_coding, contract.input_scale, contract.input_levels, contract.steps)
    assert facts == ("events", 1.0, 1, 5)
    seen = Witness.load(tmp_path / "run" / "witness.npz").inputs
    assert seen.shape[1:] == (5, 1, 8, 8)
    assert np.unique(seen).tolist() == [0, 1]
    done = snnpipe("verify", "run", "--samples", "80", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    verdicts = {arrow["to"]: arrow["verdict"] for arrow in done.json["chain"]}
    assert set(verdicts.values()) == {"PASSED"}
    assert {"folded", "snapped", "torch", "onnx", "event"} <= set(verdicts)
    last = next(row for row in done.json["by_steps"] if row["steps"] == 5)
    assert last["accuracy"]["correct"] > 55
