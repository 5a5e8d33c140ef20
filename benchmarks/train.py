"""One training step of the Fashion-MNIST net: rules and neuron paths, time and saved bytes.

Each row is measured in turn with every other (interleaved), so that what else the machine does hits
all of them; the time is the median of the rounds, one thread. ``plain`` is the neuron in torch
operations, ``kernel`` the fused C++ one. Saved bytes are the storages kept for the backward pass,
parameters left out.

    OMP_NUM_THREADS=1 python benchmarks/train.py
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from snnpipe.train import kernels
from snnpipe.train.build import build
from snnpipe.train.recipe_file import read_recipe
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate

BATCH, ROUNDS = 128, 7
RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "fashion_mnist.toml"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(read_recipe(RECIPE)).train()
    for parameter in model.parameters():
        if parameter.dim() == 4:  # as the training loop lays them out
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def step(rule: BPTT | Rate, steps: int) -> tuple[float, float]:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = F.cross_entropy(next(iter(rule(model, images, steps))).mean, labels)
        loss.backward()
        return time.perf_counter() - started, sum(kept.values()) / 1e6

    rows = [
        ("bptt", BPTT(), "plain"),
        ("bptt", BPTT(), "kernel"),
        ("rate", Rate(), "plain"),
        ("rate", Rate(), "kernel"),
    ]
    print(f"batch {BATCH}, {sum(p.numel() for p in model.parameters()):,} parameters, one thread")
    print(f"{'T':>2}  {'rule':<5} {'neuron':<7} {'ms/step':>8} {'of bptt kernel':>15} {'MB':>8}")
    for steps in (2, 4, 8):
        times: dict[int, list[float]] = {index: [] for index in range(len(rows))}
        saved: dict[int, float] = {}
        for _ in range(ROUNDS):
            for index, (_, rule, path) in enumerate(rows):
                with patch.object(kernels, "BUILT", path == "kernel" and kernels.BUILT):
                    seconds, saved[index] = step(rule, steps)
                times[index].append(seconds)
        best = statistics.median(times[1])
        for index, (name, _, path) in enumerate(rows):
            median = statistics.median(times[index])
            print(
                f"{steps:>2}  {name:<5} {path:<7} {1e3 * median:>8.1f} {median / best:>15.2f} "
                f"{saved[index]:>8.1f}"
            )


if __name__ == "__main__":
    main()
