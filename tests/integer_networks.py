"""Random integer networks, with or without hypothesis, and how often a run met a corner.

`random_integer_network` makes one from a seed; `integer_networks` is the strategy over it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.dynamics import DECAY_UNITS, V_MAX, WEIGHT_SHIFT, IntegerCell, State
from snnpipe.network.integer_sums import carry
from snnpipe.network.layers import (
    Conv,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Shape,
    SumPool,
    Synapse,
)
from snnpipe.network.linear import apply
from snnpipe.network.loihi import (
    SUM_MAX,
    THRESHOLD_MAX,
    effective_weight,
    sign_mode,
    weight_step,
    wrap24,
)
from snnpipe.network.neurons import IF, LIF, CubaLIF, Neuron, Sum, decay_of
from snnpipe.network.shapes import shape_after
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace, unpack

Chain = tuple[Operation, ...]

OVERFLOWING = 250_000
"""The largest sum of weights into a neuron that may overflow: far beyond what wraps, and still
within what the engine's 32 bits hold."""


def _steps_of(memory: Any, steps: int) -> float:
    """How many times one step's addition a state with this decay can hold after ``steps``."""
    kept = float(np.max(memory))
    return float(steps) if kept == 1 else (1 - kept**steps) / (1 - kept)


@dataclass
class _Maker:
    """Draws the parts of one network, and knows how large each source's values can be."""

    rng: np.random.Generator
    steps: int
    bits: int
    lava: bool
    overflow: bool
    exponents: dict[str, int] = field(default_factory=dict)
    bias_exponents: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    reach: float = 0.0
    span: float = 0.0

    def once_in(self, n: int) -> bool:
        """True once in n draws."""
        return bool(self.rng.integers(n) == 0)

    def number(self, low: int, high: int) -> int:
        """A whole number in a range, ends included."""
        return int(self.rng.integers(low, high + 1))

    def size(self, shape: Shape) -> Shape:
        """The shape of a parameter: one for all, per channel, or per neuron."""
        channel = (shape[0], *([1] * (len(shape) - 1)))
        return ((), channel, shape)[self.number(0, 2)]

    def decay(self, shape: Shape) -> np.ndarray:
        """Multiples of 1/4096: anything, of one kind a network, from no memory to nearly all."""
        most = DECAY_UNITS - 1 if self.overflow else 3600
        units = self.rng.integers(0, most + 1, self.size(shape))
        if self.once_in(3):
            units = np.where(units % 2, most, 0 * units)
        return np.float32(units / DECAY_UNITS)

    def neuron(self, shape: Shape) -> Neuron:
        """A neuron without its threshold, which the weights decide."""
        later = np.zeros((), np.float32)
        kind = self.number(0, 3)
        if kind == 0:
            return IF(later)
        if kind == 1:
            return LIF(self.decay(shape), later)
        return CubaLIF(self.decay(shape), self.decay(shape), later)

    def held(self, neuron: Neuron) -> tuple[float, float]:
        """The largest sum that can enter at every step, and the largest bias, in membrane units."""
        if self.overflow:
            return OVERFLOWING, 2.0**20
        memory = _steps_of(neuron.synaptic_decay, self.steps) if isinstance(neuron, CubaLIF) else 1
        times = self.steps if isinstance(neuron, Sum) else _steps_of(decay_of(neuron), self.steps)
        return 0.8 * SUM_MAX / (memory * times), 0.1 * V_MAX / times

    def threshold(self, neuron: Neuron, shape: Shape, reach: float) -> Neuron:
        """The neuron with thresholds that some sums meet exactly, and few never reach."""
        step = weight_step(self.bits, "mixed")
        most = int(min(reach / 3, THRESHOLD_MAX)) + 1
        values = self.rng.integers(0, most + 1, self.size(shape))
        if self.once_in(2):
            values = values // step * step
        if self.overflow and self.once_in(3):
            ends = np.array([0, step, THRESHOLD_MAX - 1, THRESHOLD_MAX])
            values = self.rng.choice(ends, values.shape)
        return replace(neuron, threshold=np.float32(values))

    def weight(self, name: str, shape: Shape, level: float, budget: float) -> np.ndarray:
        """Weights of the network's bits whose sums stay within a budget, exponent included."""
        rng, sign = self.rng, ("mixed", "mixed", "excitatory", "inhibitory")[self.number(0, 3)]
        step = weight_step(self.bits, sign)
        most = (256, 64, 4 * step)[self.number(0, 2)] // step
        rows = step * rng.integers(-most, most + 1, (shape[0], int(np.prod(shape[1:]))))
        rows *= rng.random(rows.shape) < rng.choice([0.3, 1.0])
        if sign != "mixed":
            rows = abs(rows) * (1 if sign == "excitatory" else -1)
        elif self.overflow:
            rows = np.where(rng.random(rows.shape) < 0.9, abs(rows), rows)
            rows *= rng.choice([-1, 1], (len(rows), 1))
        reach = max(float(abs(rows).sum(axis=1).max()) * level, 1.0)
        exponent = int(np.floor(np.log2(max(budget, 1.0) / reach)).clip(-12, 8))
        if name.endswith("conv") and self.lava:  # Lava's convolutions have no exponents
            exponent = 0
        elif exponent > -5 and not self.once_in(4 if self.overflow else 2):
            exponent = self.number(-5, 0) if self.once_in(2) or not self.overflow else exponent
        within, wide = budget / 2.0**exponent, self.overflow and level > 2**20
        if name.endswith("conv") and wide:  # beyond 24 bits, and what is left fits the neuron
            exponent, within = -self.number(7, 9), 2.0**29
        elif name.endswith("conv"):
            within = min(within, 2.0**22)
        if exponent or self.once_in(4):
            self.exponents[name] = exponent
        order = rng.permuted(np.broadcast_to(np.arange(rows.shape[1]), rows.shape), axis=1)
        shuffled = np.take_along_axis(rows, order, axis=1)
        fits = np.cumsum(abs(shuffled), axis=1) * level <= within
        np.put_along_axis(rows, order, shuffled * fits, axis=1)
        while (kept := effective_weight(rows, self.bits, sign_mode(rows)) != rows).any():
            rows = np.where(kept, effective_weight(rows, self.bits, sign_mode(rows)), rows)
        self.reach = float(np.median(rows.clip(0).sum(axis=1))) * level * 2.0**exponent
        self.span += float(abs(rows).sum(axis=1).max()) * level * 2.0**exponent + 1
        return np.float32(rows.reshape(shape))

    def bias(self, layer: str, out: int, largest: float) -> np.ndarray | None:
        """A bias of 13 bits at the layer's exponent, or none."""
        if self.once_in(2):
            return None
        exponent = self.bias_exponents[layer] = self.number(0, 7)
        most = int(min(4095, largest / 2**exponent))
        mantissa = self.rng.integers(-most, most + 1, out)
        if self.overflow and self.once_in(2):
            mantissa = np.where(mantissa < 0, -most, mantissa)
        return np.float32(mantissa * 2**exponent / 2**WEIGHT_SHIFT)

    def conv(self, name: str, shape: Shape, level: float, held: tuple[float, float]) -> Conv:
        """A convolution over (C, H, W) that fits any image."""
        groups = [g for g in (1, 2, shape[0]) if shape[0] % g == 0][self.number(0, 1)]
        kernel = (self.number(1, 3), self.number(1, 3))
        dilation = (self.number(1, 2), self.number(1, 2))
        padding = ((kernel[0] - 1) * dilation[0], self.number(0, 1) + kernel[1] - 1)
        out = groups * self.number(1, 3)
        weight = self.weight(name, (out, shape[0] // groups, *kernel), level, held[0])
        stride = (self.number(1, 3), self.number(1, 2))
        bias = self.bias(name.split(".", 1)[0], out, held[1])
        return Conv(name, weight, bias, stride, padding, dilation, groups)

    def delayed(self, name: str, chain: Sequence[Operation]) -> Chain:
        """The chain, now and then with a delay somewhere in it; beside convolutions not in Lava."""
        dense = any(isinstance(operation, Dense) for operation in chain)
        if not self.once_in(3) or (self.lava and not dense):
            return tuple(chain)
        at = self.number(0, len(chain))
        return (*chain[:at], Delay(f"{name}.delay", self.number(0, 3)), *chain[at:])

    def dense(
        self, name: str, shape: Shape, out: int, level: float, budget: float, bias: float = 0
    ) -> Chain:
        """A dense map of an image or a row."""
        flat: list[Operation] = [Flatten(f"{name}.flatten")] if len(shape) > 1 else []
        label = f"{name}.dense"
        weight = self.weight(label, (out, int(np.prod(shape))), level, budget)
        more = self.bias(name.split(".", 1)[0], out, bias) if bias else None
        return self.delayed(name, [*flat, Dense(label, weight, more)])

    def feed(self, name: str, source: str, shape: Shape, held: tuple[float, float]) -> Synapse:
        """The synapse that gives a layer its shape: half of what the layer can hold."""
        level, held = self.largest[source], (held[0] / 2, held[1])
        chain: list[Operation] = []
        if len(shape) == 3 and min(shape[1:]) >= 2 and self.once_in(3) and not self.lava:
            chain.append(SumPool(f"{name}.pool", (2, 2), (2, self.number(1, 2))))
            shape, level = shape_after(chain[0], shape), 4 * level
        if len(shape) == 3 and not self.once_in(4):
            conv = self.conv(f"{name}.conv", shape, level, held)
            return Synapse(source, self.delayed(name, [*chain, conv]))
        out = (12, 12, 12, 1, 33, 70)[self.number(0, 5)]  # 12: shapes that meet again
        return Synapse(source, (*chain, *self.dense(name, shape, out, level, *held)))

    def join(
        self, name: str, source: str, shapes: tuple[Shape, Shape], budget: float
    ) -> Synapse | None:
        """A further synapse, skipping layers or closing a loop; None where nothing fits."""
        entering, shape = shapes
        level = self.largest[source]
        if entering == shape and level <= budget and not self.lava and self.once_in(3):
            self.span += level
            return Synapse(source)
        if entering == shape and len(shape) == 3:
            channels = shape[0]
            weight = self.weight(f"{name}.conv", (channels, channels, 3, 3), level, budget)
            conv = Conv(f"{name}.conv", weight, None, padding=(1, 1))
            return Synapse(source, self.delayed(name, [conv]))
        if len(shape) == 1:
            return Synapse(source, self.dense(name, entering, shape[0], level, budget))
        return None


def _shape_of(synapse: Synapse, shape: Shape) -> Shape:
    for operation in synapse.operations:
        shape = shape_after(operation, shape)
    return shape


def _host_layer(make: _Maker, network_input: Shape) -> Layer:
    """A layer whose current the host computes, exactly, from weights that are no integers."""
    weight = np.float32(make.rng.integers(-40, 41, (12, int(np.prod(network_input)))) / 64)
    bias = np.float32(make.rng.integers(-9, 10, 12) / 64)
    flat = (Flatten("host.flatten"),) if len(network_input) > 1 else ()
    make.bias_exponents["host"] = make.number(1, 4)
    neuron = LIF(np.float32(make.number(0, 2000) / DECAY_UNITS), np.float32(make.number(10, 600)))
    return Layer("host", neuron, (12,), (Synapse("input", (*flat, Dense("host.w", weight, bias))),))


def _population(
    make: _Maker, name: str, source: str, entering: Shape, earlier: Sequence[Layer], total: bool
) -> Layer:
    """One layer, now and then with a skip from an earlier one and a loop to itself."""
    neuron: Neuron = Sum() if total else make.neuron((1,))
    held, make.span = make.held(neuron), 0.0
    first, reach = make.feed(name, source, entering, held), make.reach
    shape, synapses = _shape_of(first, entering), [first]
    if not total and not isinstance(neuron, IF):
        redrawn = {"decay": make.decay(shape)}
        if isinstance(neuron, CubaLIF):
            redrawn["synaptic_decay"] = make.decay(shape)
        if make.held(replace(neuron, **redrawn))[0] >= held[0]:
            neuron = replace(neuron, **redrawn)
    if earlier and make.once_in(2):
        far = earlier[make.number(0, len(earlier) - 1)]
        more = None
        if far.name != source:
            more = make.join(f"{name}.skip", far.name, (far.shape, shape), held[0] / 4)
        synapses += [] if more is None else [more]
    make.largest[name] = 64 * make.span + held[1] if total else 1.0
    if not total:
        neuron = make.threshold(neuron, shape, reach)
    return Layer(name, neuron, shape, tuple(synapses))


def _looped(make: _Maker, layers: list[Layer]) -> None:
    """Recurrent synapses: of a layer to itself, or back to one that stands before it."""
    usable = [n for n, layer in enumerate(layers) if layer.name not in ("host", "readout")]
    spiking = [n for n in usable if not isinstance(layers[n].neuron, Sum)]
    for _ in range(make.number(0, 2)):
        if not spiking:
            return
        source = layers[spiking[make.number(0, len(spiking) - 1)]]
        ends = [n for n in spiking if layers[n].name <= source.name]
        at = ends[make.number(0, len(ends) - 1)]
        target = layers[at]
        if any(synapse.source == source.name for synapse in target.synapses):
            continue
        name, budget = f"{target.name}.from_{source.name}", make.held(target.neuron)[0] / 8
        more = make.join(name, source.name, (source.shape, target.shape), budget)
        if more is not None:
            layers[at] = replace(target, synapses=(*target.synapses, more))


def random_integer_network(
    seed: int,
    *,
    layers: int | None = None,
    steps: int | None = None,
    legal_for_lava: bool = False,
    overflow: bool = False,
    branches: bool = True,
    host: bool | None = None,
) -> Network:
    """A random integer network, the same for the same arguments.

    Integer LIF, IF and CubaLIF with parameters for all, per channel or per neuron; dense maps and
    convolutions of 1 to 8 bits with exponents, delays, sum pools, skips, loops, `Sum` layers,
    graded input of 1 to 255 levels, and (``host`` None: once in five) a first layer whose current
    the host computes. Without ``overflow`` it passes `check` at level ``integer``; with it weights,
    biases and thresholds are so large that currents wrap and membranes saturate. Under
    ``legal_for_lava`` there is nothing that Lava cannot express: neurons fire above the threshold
    and are reset to 0, a synapse is one linear map with exponents and delays beside dense ones
    only, no sum pools, and no `Sum` but the read-out.
    """
    rng = np.random.default_rng(seed)
    if steps is None:
        steps = int(rng.integers(1, 17))
    bits = (8, 8, 8, 6, 4, 3, 2, 1)[int(rng.integers(8))]
    make = _Maker(rng, steps, bits, legal_for_lava, overflow)
    front = (make.number(1, 3),)
    shape: Shape = front if make.once_in(3) else (*front, make.number(2, 6), make.number(2, 6))
    network_input, levels = shape, (1, 1, 15, 255)[make.number(0, 3)]
    make.largest["input"] = levels
    hosted = make.once_in(5) if host is None else host
    made: list[Layer] = []
    if hosted:
        made = [_host_layer(make, shape)]
        shape, make.largest["host"] = (12,), 1.0
    source = made[0].name if made else "input"
    for index in range(make.number(1, 4) if layers is None else layers):
        total = branches and not legal_for_lava and index > 0 and make.once_in(3)
        earlier = made if branches else []
        layer = _population(make, f"layer{index}", source, shape, earlier, total)
        made.append(layer)
        source, shape = layer.name, layer.shape
    if make.once_in(2):
        budget, bias = make.held(Sum())
        out = make.number(1, 10)
        chain = make.dense("readout", shape, out, make.largest[source], budget, bias)
        made.append(Layer("readout", Sum(), (out,), (Synapse(source, chain),)))
    if branches:
        _looped(make, made)
    free = not legal_for_lava
    contract = Contract(
        steps,
        compare="ge" if free and make.once_in(3) else "gt",
        reset="subtract" if free and make.once_in(3) else "value",
        input_scale=1 / 16 if hosted else 1.0,
        input_levels=16 if hosted else levels,
        arithmetic=Integer(
            bits, make.bias_exponents, {"host": make.number(1, 400)} if hosted else {},
            make.exponents,
        ),
    )  # fmt: skip
    return Network("input", network_input, tuple(made), made[-1].name, contract)


@st.composite
def integer_networks(draw: Any, branches: bool = True, **profile: Any) -> Network:
    """Random networks of level ``integer``, see `random_integer_network` for the profile."""
    layers = draw(st.integers(1, 4))
    return random_integer_network(
        draw(st.integers(0, 2**32 - 1)), layers=layers, branches=branches, **profile
    )


def integer_frames(
    network: Network, samples: int, seed: int, steps: int | None = None
) -> np.ndarray:
    """Inputs (B, *input_shape), with ``steps`` (T, B, *input_shape): the first sample is at its
    largest everywhere, the others are random and of different densities."""
    contract, rng = network.contract, np.random.default_rng(seed)
    front = (samples,) if steps is None else (steps, samples)
    levels = rng.integers(0, contract.input_levels + 1, (*front, *network.input_shape))
    rank = len(network.input_shape)
    density = rng.choice([0.2, 0.7, 1.0], (samples, *([1] * rank)))
    levels = levels * (rng.random(levels.shape) < density)
    levels[(..., 0, *[slice(None)] * rank)] = contract.input_levels
    return contract.frames(levels)


def corner_hits(network: Network, x: np.ndarray, steps: int) -> Counter[str]:
    """How often a run of the reference met each corner of the integers, over all neurons and steps.

    ``wraps`` currents that left 24 bits; ``below`` and ``above`` membranes at the rails;
    ``at_threshold`` membranes exactly at it; ``floors`` negative sums that a right shift rounded
    down; ``conv_wraps`` sums of convolutions that left their 24 bits.
    """
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        raise TypeError(f"{arithmetic.kind} networks have no integer corners")
    hits: Counter[str] = Counter()
    step = IntegerCell.membrane

    def counted(cell: IntegerCell, state: State, total: Any, bias: Any) -> State:
        after = step(cell, state, total, bias)
        kept = (abs(state.i) * (4095 - cell.du) >> 12) * np.sign(state.i)
        hits["wraps"] += int((kept + total * 64 != after.i).sum())
        hits["below"] += int((after.v == -V_MAX).sum())
        hits["above"] += int((after.v == V_MAX).sum())
        hits["at_threshold"] += int((after.v == cell.threshold * 64).sum())
        return after

    recorded = Record(currents=x.shape[-1 - len(network.input_shape)])
    with mock.patch.object(IntegerCell, "membrane", counted):
        trace = simulate(network, x, steps, recorded)
    for layer in network.layers:
        if layer.name not in arithmetic.host_scale:
            for synapse in layer.synapses:
                hits += _synapse_hits(network, arithmetic, synapse, trace, x)
    return hits


def _synapse_hits(
    network: Network, arithmetic: Integer, synapse: Synapse, trace: Trace, x: np.ndarray
) -> Counter[str]:
    """The corners of a synapse's sums before their exponent, over all that its source emitted."""
    hits: Counter[str] = Counter()
    if synapse.source == network.input:
        values = x.reshape(-1, *network.input_shape)
    elif synapse.source in trace.spikes:
        values = unpack(trace.spikes[synapse.source], network.shape_of(synapse.source))
        values = values.reshape(-1, *values.shape[2:])
    else:
        shape = network.shape_of(synapse.source)
        values = trace.currents[synapse.source].reshape(-1, *shape)
    values = values.astype(np.int64)
    for operation in synapse.operations:
        exponent = arithmetic.weight_exponents.get(operation.name, 0)
        if isinstance(operation, Dense | Conv):
            unbiased = replace(operation, bias=None)
            total = np.rint(apply(unbiased, values.astype(np.float64))).astype(np.int64)
            if isinstance(operation, Conv):
                hits["conv_wraps"] += int((wrap24(total) != total).sum())
                total = wrap24(total)
            if exponent < 0:
                hits["floors"] += int(((total < 0) & (total % 2**-exponent != 0)).sum())
        values = carry(arithmetic, operation, values)
    return hits
