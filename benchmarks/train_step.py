"""One training step under every learning rule: time, saved bytes, peak memory.

Rules and numbers of steps are measured in turn (interleaved), so that what else the machine does
hits all of them; times are medians of the rounds, forward and backward, no optimiser. ``autograd``
is BPTT with the neuron in plain torch operations, as one writes it by hand. Where SpikingJelly and
snnTorch are installed, the same net runs with their neurons. ``linear`` is the number of linear
maps of a rule over BPTT's 3 T: what the ratio would be if nothing else cost time.

    python benchmarks/train_step.py                                       # ResNet-18, 2 threads
    python benchmarks/train_step.py --net small --threads 1 --batch 32 --steps 4 --rounds 15
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from unittest.mock import patch

import torch
import torch.nn.functional as F
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.train import kernels
from snnpipe.train.build import build
from snnpipe.train.examples import Batch
from snnpipe.train.modules import LIF
from snnpipe.train.objective import Told
from snnpipe.train.protocol import LearningRule
from snnpipe.train.recipe import DataPart, LossPart, ModelPart, Recipe
from torch import Tensor, nn

LINEAR: dict[str, Callable[[int], int]] = {
    "bptt": lambda T: 3 * T,
    "bptt_recompute": lambda T: 4 * T,
    "rate": lambda T: T + 2,
    "rate_single_step": lambda T: T + 3,
    "sltt": lambda T: 3 * T,
    "sltt_k": lambda T: T + 2,
    "ottt": lambda T: 3 * T,
    "ottt_online": lambda T: 3 * T,
}
"""Linear maps per layer and pass, with the rules' default settings."""

Losses = Iterator[Tensor]
Step = Callable[[], Losses]
"""Begins a pass; hands out losses, from each of which to go backward."""


@dataclass(eq=False)
class Row:
    """A way to learn from one batch in ``steps`` steps, and what was measured of it."""

    name: str
    steps: int
    model: nn.Module
    begin: Step
    seconds: list[float] = field(default_factory=list)
    saved: int = 0
    peak: int = 0
    bf16: bool = False

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.model.parameters()).device

    def next_of(self, losses: Losses) -> Tensor | None:
        """The next part's loss: its forward pass, in bfloat16 where autocast has it so."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return next(losses, None)

    def wait(self) -> None:
        """For what a GPU has not done yet."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def small() -> nn.Module:
    """Three convolutions of 16, 32 and 32 channels on (1, 28, 28), pooled twice."""
    layers: list[nn.Module] = []
    for before, after, pooled in ((1, 16, True), (16, 32, True), (32, 32, False)):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), LIF()]
        layers += [nn.AvgPool2d(2)] if pooled else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 7 * 7, 10))


def resnet18() -> nn.Module:
    """The published shape on (3, 32, 32), house defaults."""
    return build(Recipe(DataPart("cifar10"), ModelPart("resnet18")))


NETS = {"resnet18": (resnet18, (3, 32, 32)), "small": (small, (1, 28, 28))}


def laid_out(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The model, its convolutions' weights laid out so; the training loop takes channels_last."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


def of_rule(rule: LearningRule, model: nn.Module, batch: Batch, steps: int) -> Step:
    """A pass under a rule with the first norm and loss that it may train with."""
    norm, (form, *_) = next(iter(rule.trains.items()))
    told = Told(LossPart(form=form), batch)

    def begin() -> Losses:
        for part in rule(model, batch.frames, steps, norm):
            yield told(part)

    return begin


def plainly(begin: Step) -> Step:
    """The same without the fused neuron."""

    def unfused() -> Losses:
        with patch.object(kernels, "BUILT", False):
            yield from begin()

    return unfused


def rivals(model: nn.Module, batch: Batch, steps: int) -> dict[str, tuple[nn.Module, Step]]:
    """The same net with the neurons of SpikingJelly and snnTorch, where they are installed."""
    found = {}
    if find_spec("spikingjelly"):
        net = _with_neurons(model, lambda: _jelly(steps))
        found["spikingjelly"] = (net, lambda: _jelly_losses(net, batch, steps))
    if find_spec("snntorch"):
        stepped = _with_neurons(model, _leaky)
        found["snntorch"] = (stepped, lambda: _leaky_losses(stepped, batch, steps))
    return found


def _with_neurons(model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A copy in torch's default layout with other neurons; time folded into the batch, or none."""
    copied = laid_out(copy.deepcopy(model), torch.contiguous_format)
    for path, module in list(copied.named_modules()):
        if isinstance(module, LIF):
            owner, _, name = path.rpartition(".")
            setattr(copied.get_submodule(owner), name, make())
    return copied


class _Unfolded(nn.Module):
    def __init__(self, neurons: nn.Module, steps: int) -> None:
        super().__init__()
        self.neurons, self.steps = neurons, steps

    def forward(self, x: Tensor) -> Tensor:
        fired: Tensor = self.neurons(x.unflatten(0, (self.steps, -1)))
        return fired.flatten(0, 1)


def _jelly(steps: int) -> nn.Module:
    from spikingjelly.activation_based import neuron, surrogate

    lif = neuron.LIFNode(
        tau=1 / (1 - 0.25), decay_input=False, v_reset=0.0, detach_reset=True, step_mode="m",
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
    )  # fmt: skip
    return _Unfolded(lif, steps)


def _jelly_losses(net: nn.Module, batch: Batch, steps: int) -> Losses:
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    frames = batch.frames.repeat(steps, *[1] * (batch.frames.dim() - 1))
    yield F.cross_entropy(net(frames).unflatten(0, (steps, -1)).mean(0), batch.labels)


def _leaky() -> nn.Module:
    import snntorch

    return snntorch.Leaky(
        beta=0.25, init_hidden=True, reset_mechanism="zero",
        spike_grad=snntorch.surrogate.sigmoid(slope=4),
    )  # fmt: skip


def _leaky_losses(net: nn.Module, batch: Batch, steps: int) -> Losses:
    from snntorch import utils

    utils.reset(net)
    outputs = [net(batch.frames) for _ in range(steps)]
    yield F.cross_entropy(torch.stack(outputs).mean(0), batch.labels)


def run(row: Row) -> float:
    """Seconds of one pass."""
    row.model.zero_grad(set_to_none=True)
    row.wait()
    started = time.perf_counter()
    losses = row.begin()
    while (loss := row.next_of(losses)) is not None:
        loss.backward()  # type: ignore[no-untyped-call]
    row.wait()
    return time.perf_counter() - started


def saved_bytes(row: Row) -> int:
    """The most that is kept for a backward pass at a time, each storage once, no parameters."""
    own = {p.untyped_storage().data_ptr() for p in row.model.parameters()}
    most, losses = 0, row.begin()
    while True:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = row.next_of(losses)
        if loss is None:
            return most
        most = max(most, sum(kept.values()))
        loss.backward()  # type: ignore[no-untyped-call]


def peak_bytes(row: Row) -> int:
    """The most that is allocated at a time in a pass beyond what was before it, gradients of the
    parameters included: as torch's allocators tell."""
    row.model.zero_grad(set_to_none=True)
    if row.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(row)
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run(row)
    events = profile.profiler.kineto_results.events()
    told = [event for event in events if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(told, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def rows_of(
    model: nn.Module, batch: Batch, steps: int, rules: list[str], bf16: bool
) -> tuple[list[Row], list[str]]:
    """All that can learn so, of ``rules`` and the others', and why the rest cannot."""
    rows, refused = [], []
    for name in rules:
        try:
            begin = of_rule(plugins.load("rules", name)(), model, batch, steps)
            next(begin())
        except RequestError as error:
            refused.append(f"{name}: {error}")
            continue
        rows.append(Row(name, steps, model, begin, bf16=bf16))
        if name == "bptt":
            rows.append(Row("autograd", steps, model, plainly(begin), bf16=bf16))
    for name, (net, begin) in rivals(model, batch, steps).items():
        rows.append(Row(name, steps, net, begin, bf16=bf16))
    return rows, refused


def table(rows: list[Row]) -> Iterator[str]:
    """The lines, T by T."""
    yield (
        f"{'T':>2}  {'rule':<17} {'ms/step':>8} {'of bptt':>8} {'autograd':>8} {'of T=1':>8} "
        f"{'linear':>8} {'saved MB':>9} {'peak MB':>8}"
    )
    by = {(row.name, row.steps): row for row in rows}
    for row in rows:
        T, first = row.steps, by.get((row.name, 1))
        linear = LINEAR.get({"autograd": "bptt"}.get(row.name, row.name))
        others = [by.get((name, T)) for name in ("bptt", "autograd")]
        ratios = [row.median / other.median if other else None for other in [*others, first]]
        ratios.append(linear(T) / (3 * T) if linear else None)
        yield (
            f"{T:>2}  {row.name:<17} {1e3 * row.median:>8.1f} "
            + " ".join(f"{'':>8}" if ratio is None else f"{ratio:>8.2f}" for ratio in ratios)
            + f" {row.saved / 1e6:>9.2f} {row.peak / 1e6:>8.1f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--net", choices=sorted(NETS), default="resnet18")
    parser.add_argument("--rules", nargs="+", default=[*plugins.summaries("rules")])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    given = _arguments()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler else tells of itself
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    make, shape = NETS[given.net]
    model = laid_out(make().train().to(given.device), torch.channels_last)
    labels = torch.randint(0, 10, (given.batch,), device=given.device)
    batch = Batch(torch.rand(given.batch, *shape, device=given.device), labels, labels)
    rows: list[Row] = []
    refused: dict[str, None] = {}
    for steps in given.steps:
        found, why = rows_of(model, batch, steps, given.rules, given.precision == "bf16")
        rows += found
        refused.update(dict.fromkeys(why))
    for row in rows:
        row.saved, row.peak = saved_bytes(row), peak_bytes(row)
    for _ in range(given.rounds):
        for row in rows:
            row.seconds.append(run(row))
    others = [f"{name} {version(name)}" for name in ("spikingjelly", "snntorch") if find_spec(name)]
    print(
        f"{given.net}, {sum(p.numel() for p in model.parameters()):,} parameters, batch "
        f"{given.batch}, {given.device}, {given.precision}, {given.threads} threads, medians of "
        f"{given.rounds}; torch {torch.__version__}{''.join(', ' + other for other in others)}"
    )
    for line in [*table(rows), *refused]:
        print(line)


if __name__ == "__main__":
    main()
