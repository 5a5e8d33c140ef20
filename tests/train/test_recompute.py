"""Recomputation changes no number: gradients and running statistics are BPTT's, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from snnpipe.train.modules import IF, LIF, CubaLIF, Recurrent
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.bptt_recompute import RecomputedBPTT
from snnpipe.train.rules.rate import Rate
from snnpipe.train.segments import as_bits
from torch import nn
from training_networks import RESETS, convnet, difference, frames, learn

pytestmark = pytest.mark.usefixtures("one_thread")
RESET = pytest.mark.parametrize(("reset", "detach"), RESETS)


class Residual(nn.Module):
    """x and a population on x. ``spikes``: its spikes are added to x; ``current``: its currents to
    those of a shortcut; ``before``: it stands before the map that is added, ``norm_before``: its
    normalisation too, so that sums of currents flow on."""

    def __init__(self, form: str, channels: int, out: int) -> None:
        super().__init__()
        self.form, early = form, form == "norm_before"
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.norm, self.lif = nn.BatchNorm2d(channels if early else out), LIF(0.5, 0.7)
        if form != "spikes":
            short = nn.Conv2d(channels, out, 1, bias=False)
            self.short = nn.Sequential(short, nn.BatchNorm2d(out))

    def forward(self, x):
        if self.form == "norm_before":
            return self.conv(self.lif(self.norm(x))) + self.short(x)
        if self.form == "before":
            return self.norm(self.conv(self.lif(x))) + self.short(x)
        if self.form == "current":
            return self.lif(self.norm(self.conv(x)) + self.short(x))
        return self.lif(self.norm(self.conv(x))) + x


def residual(form: str) -> nn.Sequential:
    torch.manual_seed(3)
    widths = (4, 4, 4) if form == "spikes" else (4, 5, 6)
    blocks = [Residual(form, a, b) for a, b in zip((4, *widths), widths, strict=False)]
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), LIF(0.5, 0.7), *blocks]
    if "before" in form:
        layers.append(LIF(0.5, 0.7))
    return nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(widths[-1] * 4, 5)
    ).double()


def dense() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 23),
        LIF(0.6, 0.3, "subtract", detach_reset=False),
        Recurrent(IF(0.9), nn.Linear(23, 23)),
        nn.Linear(23, 5),
        LIF(0.2, 0.1),
    ).double()


def same_as_bptt(model: nn.Module, x: torch.Tensor, steps: int, norm: str = "joint") -> float:
    """Mean output, gradients and state equal BPTT's bit for bit; the gradient's norm."""
    found = []
    for rule in (BPTT(), RecomputedBPTT()):
        copied = copy.deepcopy(model)
        torch.manual_seed(5)  # the mask of dropout
        (part,) = rule(copied, x, steps, norm)
        F.cross_entropy(part.mean, torch.arange(len(part.mean)) % 5).backward()
        grads = [p.grad for p in copied.parameters()]
        found.append([part.outputs.detach(), *grads, *copied.buffers()])
    for expected, value in zip(*found, strict=True):
        assert torch.equal(expected, value)
    return float(sum(p.norm() for p in found[1][1 : 1 + len(list(model.parameters()))]))


@RESET
@pytest.mark.parametrize("norm", ["joint", "per_step", None])
@pytest.mark.parametrize("moving", [False, True])
def test_a_plain_net_has_the_gradient_of_bptt(norm, reset, detach, moving):
    model = convnet(3, norm is not None, decay=0.6, threshold=0.8, reset=reset, detach_reset=detach)
    assert same_as_bptt(model, frames(4 if moving else None), 4, norm or "joint") > 1e-3


@pytest.mark.parametrize("form", ["spikes", "current", "norm_before"])
def test_a_residual_net_has_the_gradient_of_bptt(form):
    assert same_as_bptt(residual(form), frames(3), 3) > 1e-3


def test_currents_that_enter_neurons_and_flow_on_too_have_it_but_for_rounding():
    """Their gradient is a sum of two, each taken through the past of its own."""
    (_, bptt), (_, found) = (
        learn(rule, residual("before"), frames(3), 3) for rule in (BPTT(), RecomputedBPTT())
    )
    assert difference(found, bptt) < 1e-13


def test_recurrent_and_last_neurons_have_the_gradient_of_bptt():
    assert same_as_bptt(dense(), frames(5), 5) > 1e-3


def test_learned_decays_of_both_neurons_have_the_gradient_of_bptt():
    torch.manual_seed(2)
    cuba = CubaLIF(0.4, 0.6, threshold=0.3, learn_decay=True)
    last = LIF(0.7, 0.5, reset="subtract", learn_decay=True)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), cuba, nn.Conv2d(4, 5, 3, 2), nn.BatchNorm2d(5), last,
        nn.Flatten(), nn.Linear(45, 5),
    ).double()  # fmt: skip
    assert sum("decay" in name for name, _ in model.named_parameters()) == 3
    assert same_as_bptt(model, frames(6), 6) > 1e-3


def test_dropout_keeps_its_mask():
    model = convnet(2, True, decay=0.5)
    model.insert(3, nn.Dropout(0.4))
    assert same_as_bptt(model, frames(), 4) > 1e-3
    torch.manual_seed(5)
    _, other = learn(RecomputedBPTT(), model, frames(), 4)
    torch.manual_seed(6)
    _, found = learn(RecomputedBPTT(), model, frames(), 4)
    assert difference(found, other) > 1e-3


def test_evaluation_has_the_gradient_of_bptt():
    model = convnet(2, True, decay=0.5)
    learn(BPTT(), model, frames(), 4)
    assert same_as_bptt(model.eval(), frames(), 4) > 1e-3


def test_a_frame_may_ask_for_its_gradient():
    model, found = convnet(2, True, decay=0.5), []
    for rule in (BPTT(), RecomputedBPTT(), Rate()):
        x = frames(4).requires_grad_()
        learn(rule, model, x, 4)
        found.append({"x": x.grad})
    assert torch.equal(found[1]["x"], found[0]["x"])
    assert difference(found[2], found[0]) > 1e-3


def test_watched_spikes_carry_the_graph_and_nothing_is_computed_twice_forward():
    model, found = convnet(3, True, decay=0.5), []
    for rule in (BPTT(), RecomputedBPTT()):
        seen: list[torch.Tensor] = []
        copied = copy.deepcopy(model)
        (part,) = rule(copied, frames(), 4, watch=lambda _, spikes, to=seen: to.append(spikes))
        assert [int(m.num_batches_tracked) for m in copied if hasattr(m, "momentum")] == [1, 1, 1]
        (part.mean.sum() + sum(spikes.mean() for spikes in seen)).backward()
        found.append([*seen, *(p.grad for p in copied.parameters()), *copied.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 2, 7, 3), (4, 2, 16), (1, 1, 1)])
def test_bits_become_the_spikes_they_were(dtype, shape):
    spikes = (torch.rand(shape) < 0.4).to(dtype)
    views = [spikes, spikes.transpose(0, -1), spikes.expand(2, *shape)]
    if len(shape) == 5:
        views.append(
            spikes.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 5))
        )
    for view in views:
        kept = as_bits(view)
        (bits,) = kept.tensors
        assert bits.dtype == torch.uint8
        assert bits.numel() == -(-view.numel() // 8)
        back = kept.restored(kept.tensors)
        assert back.dtype == dtype
        assert torch.equal(back, view)
        assert back.stride() == torch.empty_like(view).stride()


def _kept_bytes(rule, model, x, steps) -> int:
    own = {t.untyped_storage().data_ptr() for t in [*model.state_dict().values(), x]}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        (part,) = rule(model, x, steps)
    assert part.outputs.requires_grad
    return sum(s.nbytes() for pointer, s in kept.items() if pointer not in own)


@pytest.mark.parametrize("form", ["spikes", "current"])
def test_what_is_kept_are_the_bits_of_the_spikes(form):
    model = residual(form).float()
    fired: list[int] = []
    x = frames(8).float()
    next(iter(BPTT()(model, x, 8, watch=lambda _, spikes: fired.append(spikes.numel()))))
    assert _kept_bytes(RecomputedBPTT(), model, x, 8) == sum(-(-n // 8) for n in fired)
    assert _kept_bytes(BPTT(), model, x, 8) > 64 * sum(fired) / 8
