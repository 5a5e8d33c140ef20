"""Where the integers of a network can leave their range, and what makes them.

From the positive and negative sums of every neuron over its real borders, and the steps of a run:
a current holds what came over the steps times its decay, ``(1 - a^T) / (1 - a)`` steps' worth, a
membrane the same of its current and bias. Truncation toward zero only lowers magnitudes, so the
bounds hold for the integers as they stand.

A membrane that saturates above its threshold fires and is reset, which loses nothing; it counts
only where a spike subtracts the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bounds import (
    Bounds,
    bias_sums,
    host_bias_bounds,
    integers_of,
    source_bounds,
    step_bounds,
    term_sums,
    walk,
)
from .contract import Integer
from .dynamics import V_MAX, WEIGHT_SHIFT
from .layers import Conv, Delay, Layer, Network, Weighted
from .loihi import HELD_PRODUCTS, HELD_SUM, SUM_MAX, THRESHOLD_MAX
from .neurons import CubaLIF, Resetting, Sum, decay_of
from .pullback import pull_through
from .shapes import shape_after

What = Literal[
    "sum wraps",
    "current wraps",
    "membrane saturates below",
    "membrane saturates above",
    "read-out saturates",
]
Values = NDArray[np.float64]

LONGEST_DRIVE = 64
"""Steps of what `drive` finds, at most."""


@dataclass(frozen=True)
class Overflow:
    """One state of a layer that some input can drive out of its range within ``steps`` steps.

    ``neuron`` (its index in the layer, or in what the convolution ``operation`` gives) reaches
    furthest of the ``neurons`` that can: to ``reach``, of either sign, where ``limit`` is the
    largest magnitude. Sums and currents are in weight units, membranes and read-outs in membrane
    units. The reach is a bound: where several synapses or layers meet, or a threshold is crossed
    on the way, it need not be met.
    """

    layer: str
    what: What
    neuron: tuple[int, ...]
    neurons: int
    reach: float
    limit: int
    steps: int
    operation: str = ""


class _Risk(NamedTuple):
    """The furthest that each neuron's state can go, signed, and what it must not pass."""

    what: What
    reach: Values
    limit: int
    operation: str = ""


def _steps_held(kept: Any, steps: int) -> Values:
    """How many steps' worth of a steady input a state holds at the end of a run."""
    kept = np.asarray(kept, np.float64)
    lost = np.where(kept == 1, 1, 1 - kept)
    return np.where(kept == 1, float(steps), (1 - kept**steps) / lost)


def _further(bounds: Bounds) -> Values:
    """Of a bound to either side the larger, with its sign."""
    return np.where(bounds[0] >= bounds[1], bounds[0], -bounds[1])


def _memory(layer: Layer) -> NDArray[Any]:
    """The factor on a layer's current from one step to the next; 0 where it has no memory."""
    neuron = layer.neuron
    return neuron.synaptic_decay if isinstance(neuron, CubaLIF) else np.zeros((), np.float32)


class _Network:
    """The bounds of a network's layers, found once."""

    def __init__(self, network: Network, arithmetic: Integer, steps: int) -> None:
        self.network, self.arithmetic, self.steps = network, arithmetic, steps
        self.sums = term_sums(network)
        self.sources = source_bounds(network, self.sums)

    def risks(self, layer: Layer) -> Iterator[_Risk]:
        """All that could overflow in a layer."""
        yield from self._registers(layer)
        if isinstance(layer.neuron, Sum):
            if layer.name == self.network.output:
                step = step_bounds(self.arithmetic, layer, self.sums[layer.name])
                yield _Risk("read-out saturates", _further(step) * self.steps, V_MAX)
        elif isinstance(layer.neuron, Resetting):
            yield from self._states(layer, layer.neuron)

    def _registers(self, layer: Layer) -> Iterator[_Risk]:
        integers = integers_of(self.network, layer)
        for synapse in layer.synapses if integers else ():
            p, n = self.sources[synapse.source]
            for operation, products, _ in walk(synapse, (p[None], n[None]), integers):
                if isinstance(operation, Conv):
                    yield _Risk("sum wraps", _further(products)[0], V_MAX, operation.name)

    def products(self, layer: Layer) -> Iterator[float]:
        """The largest sum of products of every weighted operation of a layer."""
        integers = integers_of(self.network, layer)
        for synapse in layer.synapses:
            p, n = self.sources[synapse.source]
            for operation, products, _ in walk(synapse, (p[None], n[None]), integers):
                if isinstance(operation, Weighted):
                    yield float(np.maximum(*products).max())

    def _states(self, layer: Layer, neuron: Resetting) -> Iterator[_Risk]:
        sums = self.sums[layer.name]
        scale = self.arithmetic.host_scale.get(layer.name)
        if scale is not None:
            exponent = self.arithmetic.bias_exponents[layer.name]
            up, down = host_bias_bounds(sums, scale, exponent)
        else:
            biases = bias_sums(self.network, layer)
            held = _steps_held(_memory(layer), self.steps)
            current = ((sums[0] - biases[0]) * held, (sums[1] - biases[1]) * held)
            yield _Risk("current wraps", _further(current), SUM_MAX)
            wraps = np.maximum(*current) > SUM_MAX
            unit = 2**WEIGHT_SHIFT
            up, down = (np.where(wraps, np.maximum(c * unit, V_MAX + 1), c * unit) for c in current)
            bias = (biases[0] - biases[1]) * unit
            up, down = np.maximum(up + bias, 0), np.maximum(down - bias, 0)
        held = _steps_held(decay_of(neuron), self.steps)
        yield _Risk("membrane saturates below", -down * held, V_MAX)
        if self.network.contract.reset == "subtract" or (neuron.threshold > THRESHOLD_MAX).any():
            yield _Risk("membrane saturates above", up * held, V_MAX)


def overflows(network: Network, steps: int | None = None) -> tuple[Overflow, ...]:
    """All that can overflow in an integer network within ``steps`` (None: the contract's).

    Of every layer, and every kind, the neuron that reaches furthest. Raises RequestError (E_GRID)
    as `bounds.sums_first`.
    """
    arithmetic = network.contract.arithmetic
    steps = network.contract.steps if steps is None else steps
    if not isinstance(arithmetic, Integer):
        return ()
    known, found = _Network(network, arithmetic, steps), []
    for layer in network.layers:
        for risk in known.risks(layer):
            size = abs(risk.reach)
            if (size > risk.limit).any():
                at = np.unravel_index(int(np.argmax(size)), size.shape)
                found.append(
                    Overflow(
                        layer.name,
                        risk.what,
                        tuple(map(int, at)),
                        int((size > risk.limit).sum()),
                        float(risk.reach[at]),
                        risk.limit,
                        steps,
                        risk.operation,
                    )
                )
    return tuple(found)


def can_overflow(network: Network, steps: int) -> frozenset[str]:
    """The layers that are not proven to stay in range within ``steps``; none in floats."""
    return frozenset(overflow.layer for overflow in overflows(network, steps))


def beyond_32_bits(network: Network) -> str:
    """What the integers of a run cannot hold, in words; empty when they hold every sum."""
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        return ""
    known = _Network(network, arithmetic, 1)
    for layer in network.layers:
        if integers_of(network, layer) is None:
            continue
        sizes = [(float(np.maximum(*known.sums[layer.name]).max()), HELD_SUM)]
        sizes += [(size, HELD_PRODUCTS) for size in known.products(layer)]
        for size, limit in sizes:
            if size > limit:
                return (
                    f"layer '{layer.name}' can add up to {size:.12g}; expected at most {limit}, "
                    "which 32 bits hold"
                )
    return ""


def whole_run(
    network: Network, counted: Mapping[str, int], outputs: NDArray[Any]
) -> dict[str, int]:
    """The overflows of a run, in the order of the layers: those counted in the steps of the layers
    that can overflow, and how often, over samples, steps and classes of ``outputs`` (T, B, K), the
    sum of a read-out so far did not fit a membrane."""
    found = {layer.name: counted[layer.name] for layer in network.layers if layer.name in counted}
    if network.output in found and isinstance(network.layer(network.output).neuron, Sum):
        sums = np.cumsum(outputs, axis=0, dtype=np.int64)
        found[network.output] += int(np.count_nonzero(abs(sums) > V_MAX))
    return found


class _Arrival(NamedTuple):
    """A synapse into an overflow: its source, the steps it takes, and the weight of each of the
    source's neurons, positive where it drives the overflow on."""

    source: str
    late: int
    weights: Values


def _arrivals(network: Network, overflow: Overflow) -> Iterator[_Arrival]:
    layer = network.layer(overflow.layer)
    for synapse in layer.synapses:
        operations, shape = synapse.operations, layer.shape
        if overflow.operation:
            names = [operation.name for operation in operations]
            if overflow.operation not in names:
                continue
            operations = operations[: names.index(overflow.operation) + 1]
            shape = network.shape_of(synapse.source)
            for operation in operations:
                shape = shape_after(operation, shape)
        wanted = np.zeros(shape)
        wanted[overflow.neuron] = np.sign(overflow.reach)
        late = sum(operation.steps for operation in operations if isinstance(operation, Delay))
        yield _Arrival(
            synapse.source,
            late + int(network.late(layer, synapse)),
            pull_through(operations, wanted, network.shape_of(synapse.source)),
        )


def _weights_of_age(layer: Layer, overflow: Overflow, steps: int) -> Values:
    """What a sum that came 0, 1, ... steps ago still counts in the state that overflows, (T,)."""
    age = np.arange(steps, dtype=np.float64)
    if overflow.what == "read-out saturates":
        return np.ones(steps)
    if overflow.what == "sum wraps":
        return 0.0**age

    def kept(parameter: NDArray[Any]) -> float:
        return float(np.broadcast_to(parameter, layer.shape)[overflow.neuron])

    current = kept(_memory(layer)) ** age
    if overflow.what == "current wraps" or not isinstance(layer.neuron, Resetting):
        return current
    membrane: Values = kept(decay_of(layer.neuron)) ** age
    return np.convolve(current, membrane)[:steps]


def drive(network: Network, overflow: Overflow) -> dict[str, NDArray[np.bool_]]:
    """Which sources must fire at which steps, (T, *shape) by name, to drive an overflow furthest.

    In every source the neurons whose weights, on their way through delays and decays to the last
    step, add up to the wanted sign; an input and a `Sum` must then be at their largest, the others
    of a `Sum` at their least. T is the overflow's steps, or `LONGEST_DRIVE`.
    """
    steps = min(overflow.steps, LONGEST_DRIVE)
    kept = _weights_of_age(network.layer(overflow.layer), overflow, steps)
    found: dict[str, Values] = {}
    for source, late, weights in _arrivals(network, overflow):
        sent = found.setdefault(source, np.zeros((steps, *weights.shape)))
        for step in range(steps - late):  # arrives `late` steps later, then ages to the last one
            sent[step] += weights * kept[steps - 1 - step - late]
    return {source: weights > 0 for source, weights in found.items()}


def driving_frames(network: Network, overflow: Overflow) -> NDArray[np.float32] | None:
    """`drive` as frames (T, 1, *input_shape), where the input alone drives the overflow;
    None where other layers do."""
    fires = drive(network, overflow)
    if set(fires) != {network.input}:
        return None
    largest = network.contract.input_scale * network.contract.input_levels
    return (fires[network.input][:, None] * largest).astype(np.float32)


def told(network: Network, overflow: Overflow) -> str:
    """An overflow in words: layer, neuron, reach, limit, and what drives it there."""
    where, reach = f"layer '{overflow.layer}' can reach", f"{overflow.reach:.12g}"
    at = list(overflow.neuron)
    driving = []
    for source, _, weights in _arrivals(network, overflow):
        either = source != network.input and isinstance(network.layer(source).neuron, Sum)
        count = np.count_nonzero(weights if either else weights > 0)
        driving.append(f"{count} of '{source}'")
    steps = "a step" if overflow.steps == 1 else f"{overflow.steps} steps"
    when = f"within {steps} of {' and '.join(driving)}"
    match overflow.what:
        case "sum wraps":
            return (
                f"'{overflow.operation}' (layer '{overflow.layer}') can reach a sum of {reach} at "
                f"{at} {when}; expected at most {overflow.limit} either way, beyond it 24 bits wrap"
            )
        case "current wraps":
            return (
                f"{where} a synaptic sum of {reach} at {at} {when}; expected at most "
                f"{overflow.limit} either way, beyond it the current wraps"
            )
        case "membrane saturates below":
            return (
                f"{where} the membrane {reach} at {at} {when}; expected at least "
                f"{-overflow.limit}, below it saturates"
            )
        case "membrane saturates above":
            return (
                f"{where} the membrane {reach} at {at} {when}; expected at most "
                f"{overflow.limit}, above it saturates"
            )
        case "read-out saturates":
            return (
                f"the read-out '{overflow.layer}' can add up to {reach} at {at} {when}; expected "
                f"at most {overflow.limit} either way"
            )
