"""One of two processes that train together, started by tests/train/test_distributed.py.

    python two_processes.py RANK FOLDER

The gradients of every case go into FOLDER/gradients-RANK.safetensors, runs into FOLDER/runs.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from snnpipe import plugins
from snnpipe.train.distributed import average_gradients
from snnpipe.train.modules import LIF
from snnpipe.train.progress import Progress
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run
from torch import nn

WORLD = 2
STEPS = 3
CASES = {
    "bptt": ("bptt", {}, "joint"),
    "bptt per step": ("bptt", {}, "per_step"),
    "rate": ("rate", {}, "joint"),
    "rate in windows": ("rate", {"windows": 3}, "joint"),
    "bptt_recompute": ("bptt_recompute", {}, "joint"),
    "rate_single_step": ("rate_single_step", {}, "per_step"),
    "sltt": ("sltt", {}, "per_step"),
}
RECIPE = """
[data]
name = "digits"
validation = 0.1
flip = true
[model]
channels = [6, 8]
strides = [2, 1]
hidden = [20]
dropout = 0.2
[train]
steps = 3
epochs = 2
batch = 32
limit = 300
average = 0.8
"""


def network() -> nn.Module:
    """Small, in float64, the same wherever it is made."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        LIF(decay=0.5, threshold=0.7),
        nn.Conv2d(5, 6, 3, stride=2, bias=False),
        nn.BatchNorm2d(6, momentum=0.3),
        LIF(decay=0.5, threshold=0.7, reset="subtract"),
        nn.Flatten(),
        nn.Linear(6 * 2 * 2, 7, bias=False),
        nn.BatchNorm1d(7),
        LIF(),
        nn.Linear(7, 4),
    ).double()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5)
    return model


def inputs(moving: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of 8 samples, the same at every step or not, and labels; samples differ in scale, so
    that the halves of the batch have other statistics than the whole."""
    draw = torch.Generator().manual_seed(4)
    shape = (STEPS, 8, 2, 6, 6) if moving else (8, 2, 6, 6)
    frames = torch.rand(shape, generator=draw, dtype=torch.float64)
    return frames * torch.linspace(0.3, 3, 8)[:, None, None, None], torch.arange(8) % 4


def learned(name: str, moving: bool, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Gradients and buffers after a pass over this process's share of the batch."""
    rule, settings, norm = CASES[name]
    frames, labels = inputs(moving)
    own = slice(rank * 8 // world, (rank + 1) * 8 // world)
    frames = frames[:, own] if moving else frames[own]
    model = network()
    for part in plugins.load("rules", rule)(**settings)(model, frames, STEPS, norm):
        (part.share * F.cross_entropy(part.mean, labels[own])).backward()
    average_gradients(model)
    found = {f"gradient {name}": p.grad for name, p in model.named_parameters()}
    return found | {f"buffer {name}": b for name, b in model.named_buffers()}


def stopped(out: Path, rank: int) -> None:
    """A run in which the second process alone is asked to stop, in the middle of an epoch."""
    seen = []
    show = Progress.show

    def look(self: Progress, text: str) -> None:
        seen.append(text)
        if rank == 1 and len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    Progress.show = look  # type: ignore[method-assign]
    try:
        train_run(parse_recipe(RECIPE, "test"), None, out)
    except SystemExit as left:
        if left.code != 143:
            raise
    finally:
        Progress.show = show  # type: ignore[method-assign]


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    found = {
        f"{name}/{moving}/{what}": value
        for name in CASES
        for moving in (False, True)
        for what, value in learned(name, moving, rank, WORLD).items()
    }
    save_file(found, folder / f"gradients-{rank}.safetensors")
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    recipe = parse_recipe(RECIPE, "test")
    train_run(recipe, None, folder / "straight")
    stopped(folder / "stopped", rank)
    if rank == 0:
        (folder / "state").write_bytes((folder / "stopped" / "state.safetensors").read_bytes())
    dist.barrier()
    train_run(recipe, None, folder / "stopped", resume=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
