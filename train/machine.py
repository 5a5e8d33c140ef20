"""Which machine a training runs on: the device that a recipe names, and the machine in words."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from ..errors import CouldNotRunError, RequestError
from .distributed import local_device, place


def device_of(name: str) -> torch.device:
    """The device of this process; RequestError or CouldNotRunError (E_DEVICE)."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(
            "E_DEVICE", f"train.device is '{name}'; expected cpu, cuda or cuda:<number>"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError("E_DEVICE", f"train.device is '{name}'; expected cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CouldNotRunError("E_DEVICE", f"train.device is '{name}', but no GPU is usable here")
    return local_device(device)


def in_words(device: torch.device) -> str:
    """The machine: processor, threads, system, processes."""
    listing = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else ())
        if line.startswith("model name")
    ]
    processor = names[0] if names else platform.processor() or platform.machine()
    words = f"{processor}, {torch.get_num_threads()} threads, {platform.system()}"
    if device.type == "cuda":
        words = f"{torch.cuda.get_device_name(device)} with {words}"
    world = place().world
    return words if world == 1 else f"{world} processes, each {words}"
