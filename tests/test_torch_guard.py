"""The guard stops a CUDA build that nobody asked for, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "torch_guard.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs a checkout")


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_guard", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("ALLOW_CUDA", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    return module


def plan(monkeypatch: pytest.MonkeyPatch, guard: ModuleType, *names: str) -> None:
    report = {"install": [{"metadata": {"name": name}} for name in names]}
    answer = subprocess.CompletedProcess([], 0, json.dumps(report), "")
    monkeypatch.setattr(guard.subprocess, "run", lambda *_, **__: answer)


def test_a_cuda_build_is_stopped_with_the_way_out(
    guard: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(monkeypatch, guard, "torch", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")
    assert guard.main() == 3
    said = capsys.readouterr().err
    assert "2 nvidia packages" in said
    assert "PIPARGS" in said
    assert "ALLOW_CUDA=1" in said


def test_a_cpu_build_goes_on(guard: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, guard, "torch", "sympy")
    assert guard.main() == 0


def test_who_asks_for_cuda_or_has_a_gpu_gets_it(
    guard: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(monkeypatch, guard, "nvidia-cublas-cu12")
    monkeypatch.setenv("ALLOW_CUDA", "1")
    assert guard.main() == 0
    monkeypatch.delenv("ALLOW_CUDA")
    monkeypatch.setattr(guard.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert guard.main() == 0


def test_no_answer_is_a_note_not_a_stop(
    guard: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", 120)

    monkeypatch.setattr(guard.subprocess, "run", late)
    assert guard.main() == 0
    assert "going on" in capsys.readouterr().err
