"""Recipes: everything a training run depends on, as data. Read and written by `recipe_file`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

LossForm = Literal["mean_output", "per_step"]
"""What a loss looks at: the output averaged over time, or each step's for itself."""
NormForm = Literal["joint", "per_step"]
"""What batch normalisation takes its statistics over in training: all steps together, or each."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number, or of every number of a list."""

    at_least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    at_most: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def __str__(self) -> str:
        bounds = [
            f"{bound.replace('_', ' ')} {limit}"
            for bound, limit in asdict(self).items()
            if math.isfinite(limit)
        ]
        return " and ".join(bounds)


@dataclass(frozen=True)
class Empty:
    """A text that may be empty."""


Count = Annotated[int, Range(at_least=1, at_most=1_000_000)]
Counts = Annotated[tuple[int, ...], Range(at_least=1, at_most=1_000_000)]
Share = Annotated[float, Range(at_least=0, below=1)]
NotNegative = Annotated[float, Range(at_least=0, at_most=1_000_000)]
Positive = Annotated[float, Range(above=0, at_most=1_000_000)]


@dataclass(frozen=True)
class DataPart:
    """What it learns from.

    ``validation``: the share of the training images held out. Each time an image is shown in
    training: ``crop`` shifts it by up to so many pixels, ``flip`` mirrors half of them left to
    right, ``cutout`` blanks a square of so many pixels, ``mixup`` blends pairs by a share drawn
    from Beta(mixup, mixup), ``autoaugment`` draws one of the policies of arXiv 1805.09501.
    ``coding``: how a still image becomes steps.
    """

    name: str
    validation: Annotated[float, Range(at_least=0, below=0.5)] = 0.0
    coding: Literal["direct", "rate", "latency"] = "direct"
    flip: bool = False
    crop: Annotated[int, Range(at_least=0, at_most=64)] = 0
    cutout: Annotated[int, Range(at_least=0, at_most=256)] = 0
    mixup: NotNegative = 0.0
    autoaugment: bool = False


@dataclass(frozen=True)
class ModelPart:
    """Which network: ``channels`` and ``strides`` of its convolutions, ``hidden`` widths of its
    dense layers, where the architecture lets one choose; ``width``: channels of the first stage of
    one of published shape, 0 for the published number; ``stem``: what stands before that stage;
    ``dropout`` before the dense layers.
    """

    name: str = "convnet"
    channels: Counts = (16, 32, 64, 64)
    strides: Counts = (2, 1, 2, 1)
    hidden: Counts = ()
    width: Annotated[int, Range(at_least=0, at_most=4096)] = 0
    stem: Literal["cifar", "imagenet"] = "cifar"
    dropout: Share = 0.0


@dataclass(frozen=True)
class NeuronPart:
    """The neuron of every spiking layer; an ``if`` neuron has no use for ``decay``, and only
    ``cuba_lif`` has one for ``synaptic_decay``.

    ``learn_decay``: one decay per layer, learned from ``decay`` on. ``detach_reset``: no gradient
    through the reset. ``relu`` has none of all this: it makes the network an ANN of one step, to
    teach a spiking one, and has no place in a file of a network.
    """

    name: Literal["lif", "if", "cuba_lif", "relu"] = "lif"
    decay: Share = 0.25
    synaptic_decay: Share = 0.25
    learn_decay: bool = False
    threshold: Positive = 1.0
    reset: Literal["zero", "subtract"] = "zero"
    compare: Literal["gt", "ge"] = "gt"
    detach_reset: bool = True


@dataclass(frozen=True)
class SurrogatePart:
    """The derivative put in the place of the step's: ``width`` in units of the threshold, or auto:
    where the gradient neither grows nor shrinks with depth, found before training.
    """

    name: str = "sigmoid"
    width: Annotated[float | Literal["auto"], Range(above=0, at_most=1_000_000)] = 1.0


@dataclass(frozen=True)
class RulePart:
    """How a forward pass becomes gradients; every setting but ``name`` is of some rules alone.

    ``windows`` (rate): the steps are cut into so many windows, a rate each; ``chosen`` (sltt_k): so
    many steps of each pass are learned from; ``rescale`` (sltt_k): gradients times T / chosen;
    ``gradient`` (rate): one, or inv_t to divide it by T as the paper's code does.
    """

    name: str = "rate"
    windows: Count = 1
    chosen: Count = 1
    rescale: bool = False
    gradient: Literal["one", "inv_t"] = "one"


@dataclass(frozen=True)
class LossPart:
    """What it is told to make small.

    ``form``: cross entropy of the output averaged over time, or of each step's, then averaged;
    ``label_smoothing``; ``mse``: the share of a squared error to ``mse_target`` in the per-step
    form (TET, arXiv 2202.11946: to a constant for every class); ``teacher``: the run folder of a
    trained network to learn from too, with ``teacher_share`` of the loss and ``temperature``;
    ``max_synops``: synaptic operations per inference to stay below, 0 for no limit.
    """

    form: LossForm = "mean_output"
    label_smoothing: Share = 0.0
    mse: Share = 0.0
    mse_target: float = 1.0
    teacher: Annotated[str, Empty()] = ""
    teacher_share: Share = 0.5
    temperature: Positive = 2.0
    max_synops: Annotated[float, Range(at_least=0, at_most=1e15)] = 0.0


@dataclass(frozen=True)
class TrainPart:
    """How it learns.

    ``steps`` is T; ``draw_steps``: T of each batch is drawn from 1 to ``steps``; ``norm``: what
    batch normalisation takes its statistics over; ``gain``: its weights at the start; ``batch``:
    images per update, of all processes together; ``accumulate``: in so many passes, each normalised
    by its own statistics; ``warmup``: the share of all updates in which the learning rate rises;
    ``momentum`` is of sgd and lars alone; ``clip``: the largest norm of a gradient, 0 for none;
    ``average``: decay of a moving average of the weights, moved at every step of the optimiser,
    which is what is tested and kept, 0 for none; ``patience``: stop after so many epochs without a
    better validation accuracy, 0 for never; ``precision``: bf16 computes in bfloat16 where torch's
    autocast does; ``limit``: train on the first so many images, 0 for all.
    """

    steps: Count = 4
    draw_steps: bool = False
    norm: NormForm = "joint"
    gain: Positive = 1.0
    epochs: Count = 10
    batch: Count = 64
    accumulate: Count = 1
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: Positive = 5e-3
    weight_decay: NotNegative = 1e-2
    momentum: Share = 0.9
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    warmup: Share = 0.2
    clip: NotNegative = 0.0
    average: Share = 0.0
    patience: Annotated[int, Range(at_least=0)] = 0
    seed: Annotated[int, Range(at_least=0, at_most=2**32 - 1)] = 0
    device: str = "cpu"
    precision: Literal["float32", "bf16"] = "float32"
    limit: Annotated[int, Range(at_least=0)] = 0


@dataclass(frozen=True)
class QuantisePart:
    """Fine-tuning in whole weights, such as a chip has, of a network trained in float.

    ``bits`` of a weight, 2 to 8, or 0 for float; ``start``: the run folder of the trained network;
    ``thresholds``: one scale, and threshold, for all neurons of a layer or one for each channel, as
    many as a core of Loihi 1 holds.
    """

    bits: Annotated[int, Range(at_least=0, at_most=8)] = 0
    start: Annotated[str, Empty()] = ""
    thresholds: Literal["layer", "channel"] = "layer"


@dataclass(frozen=True)
class WitnessPart:
    """How many test images go into the witness, with the spikes they caused."""

    samples: Count = 32


@dataclass(frozen=True)
class SourcePart:
    """Where a recipe's settings come from: ``paper`` and the ``figure`` it reports. ``status``:
    verified once somebody has trained it and seen the figure."""

    paper: Annotated[str, Empty()] = ""
    figure: Annotated[str, Empty()] = ""
    status: Literal["own", "unverified", "verified"] = "own"


@dataclass(frozen=True)
class Recipe:
    """A training run, resolved: every field has a value. Only ``data.name`` has no default."""

    data: DataPart
    model: ModelPart = field(default_factory=ModelPart)
    neuron: NeuronPart = field(default_factory=NeuronPart)
    surrogate: SurrogatePart = field(default_factory=SurrogatePart)
    rule: RulePart = field(default_factory=RulePart)
    loss: LossPart = field(default_factory=LossPart)
    train: TrainPart = field(default_factory=TrainPart)
    quantise: QuantisePart = field(default_factory=QuantisePart)
    witness: WitnessPart = field(default_factory=WitnessPart)
    source: SourcePart = field(default_factory=SourcePart)
